"""Connections that webhooks may make: to public addresses, and to private networks only where the operator allows them.

The check is made on the very address that is connected to, so that no redirect, no proxy variable and no name that resolves
differently the second time gets around it.
"""

import ipaddress
import math
import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore2

from guardfleet.errors import RejectedError
from guardfleet.security.ssrf import is_allowed, look_up


class RefusedAddressError(RejectedError):
    """The receiver's address is not one that webhooks may reach."""


class CheckedBackend(httpcore2.NetworkBackend):
    """Resolves, checks every answer, and connects to a checked address; TLS still verifies the name.

    A connection lives for `limit_s` at most, whatever is sent on it: the client's timeouts apply to single operations, and a
    receiver that sends a byte every few seconds never reaches one. So a connection serves one request.
    """

    def __init__(self, allowed: Iterable[str], *, limit_s: float) -> None:
        self._allowed = [ipaddress.ip_network(net) for net in allowed]
        self._limit_s = limit_s
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None, socket_options: Any = None
    ) -> httpcore2.NetworkStream:
        """Connect to the first address that accepts; refuse all if any resolved address is not allowed."""
        deadline = time.monotonic() + self._limit_s
        addresses = _resolved(host, port, limit_s=self._limit_s)
        if not all(is_allowed(address, self._allowed) for address in addresses):
            raise RefusedAddressError(
                "the receiver's address is private or reserved: allow it with GUARDFLEET_WEBHOOKS__ALLOW_NETWORKS."
            )
        failed: Exception = httpcore2.ConnectError("the receiver's name has no address")
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            # An address that does not answer leaves the others their share of the time.
            within = min(timeout or self._limit_s, _left(deadline, httpcore2.ConnectTimeout) / left)
            try:
                return Limited(self._inner.connect_tcp(address, port, within, local_address, socket_options), deadline)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> httpcore2.NetworkStream:
        """Refuse: no webhook goes to a socket of this machine."""
        raise RefusedAddressError("webhooks do not go to Unix sockets.")


class Limited(httpcore2.NetworkStream):
    """A stream that ends at `deadline`."""

    def __init__(self, inner: httpcore2.NetworkStream, deadline: float) -> None:
        self._inner, self._deadline = inner, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what has arrived."""
        return self._inner.read(max_bytes, _left(self._deadline, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all of it."""
        self._inner.write(buffer, _left(self._deadline, httpcore2.WriteTimeout))

    def close(self) -> None:
        """Close it."""
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Start TLS under the same deadline."""
        within = min(timeout or math.inf, _left(self._deadline, httpcore2.ConnectTimeout))
        return Limited(self._inner.start_tls(ssl_context, server_hostname, within), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        """Return what the inner stream knows."""
        return self._inner.get_extra_info(info)


def _resolved(host: str, port: int, *, limit_s: float) -> list[str]:
    """Return the host's addresses, each once, in the order of the answer."""
    try:
        return list(dict.fromkeys(look_up(host, port).result(limit_s)))
    except (OSError, UnicodeError) as error:  # TimeoutError is an OSError
        raise httpcore2.ConnectError(type(error).__name__) from error


def _left(deadline: float, over: type[Exception]) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise over("the delivery took longer than its time limit")
    return left_s
