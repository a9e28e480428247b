"""Connections that webhooks may make: to public addresses, and to private networks only where the operator allows them.

The address is checked where the connection is made, on the very address that is connected to, so that neither a redirect, nor a
proxy variable, nor a name that resolves differently the second time gets around it.
"""

import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Any

import httpcore2

from guardfleet.errors import RejectedError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# What `is_global` lets through and should not: transition prefixes that wrap other addresses, relays, documentation.
REFUSED: tuple[Network, ...] = tuple(ipaddress.ip_network(net) for net in (
    "192.88.99.0/24", "168.63.129.16/32", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "3fff::/20", "5f00::/16",
    "fec0::/10", "::/96",
))  # fmt: skip


class RefusedAddressError(RejectedError):
    """The receiver's address is not one that webhooks may reach."""


def is_allowed(address: str, allowed: Sequence[Network]) -> bool:
    """Whether a connection to `address` may be made."""
    ip: Address = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if any(ip.version == net.version and ip in net for net in allowed):
        return True
    if any(ip.version == net.version and ip in net for net in REFUSED):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


class CheckedBackend(httpcore2.NetworkBackend):
    """Resolves, checks every answer, and connects to a checked address; TLS still verifies the name."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = [ipaddress.ip_network(net) for net in allowed]
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None, socket_options: Any = None
    ) -> httpcore2.NetworkStream:
        """Connect to the first checked address; refuse if any answer is refused."""
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore2.ConnectError(f"{type(error).__name__}") from error
        addresses = [str(answer[4][0]) for answer in answers]
        if not all(is_allowed(address, self._allowed) for address in addresses):
            raise RefusedAddressError("the receiver's address is private or reserved; webhook_allow_networks can allow it.")
        return self._inner.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> httpcore2.NetworkStream:
        """Never: no webhook goes to a socket of this machine."""
        raise RefusedAddressError("webhooks do not go to Unix sockets.")
