"""Check the ports that a process will listen on, before anything else is started."""

import errno
import socket

from guardfleet.errors import ConfigurationError
from guardfleet.settings import variable_of


def require_free(host: str, port: int, setting: str) -> None:
    """Raise ConfigurationError, naming the port and its setting, if nobody can listen there; 0 is any free port."""
    name = variable_of(setting)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigurationError(f"port {port} at {host} is in use: set {name} to another, or free it.") from None
        raise ConfigurationError(f"cannot listen on port {port} at {host} ({error.strerror}): set {name} to another.") from None
