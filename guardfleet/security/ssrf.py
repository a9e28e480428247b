"""Which addresses webhooks may reach: public ones, and private networks only if the operator allows them."""

import ipaddress
import socket
import threading
import urllib.parse
from collections.abc import Sequence
from concurrent.futures import Future

from guardfleet.errors import RejectedError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOK_UP_S = 2.0  # accept a name that is not resolved by then: the address is checked again when connecting
# Addresses that `is_global` wrongly lets through: transition prefixes that wrap other addresses, relays, documentation.
REFUSED: tuple[Network, ...] = tuple(ipaddress.ip_network(net) for net in (
    "192.88.99.0/24", "168.63.129.16/32", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "3fff::/20", "5f00::/16",
    "fec0::/10", "::/96",
))  # fmt: skip


def is_allowed(address: str, allowed: Sequence[Network]) -> bool:
    """Return whether a connection to `address` is allowed."""
    ip: Address = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if any(ip.version == net.version and ip in net for net in allowed):
        return True
    if any(ip.version == net.version and ip in net for net in REFUSED):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


def look_up(host: str, port: int) -> "Future[list[str]]":
    """Resolve a host in the background. getaddrinfo has no timeout, so each call runs in a thread of its own."""
    found: Future[list[str]] = Future()

    def resolve() -> None:
        try:
            found.set_result([str(answer[4][0]) for answer in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except Exception as error:  # noqa: BLE001 - passed on
            found.set_exception(error)

    threading.Thread(target=resolve, name="resolve", daemon=True).start()
    return found


def spelled(host: str, port: int) -> list[str] | None:
    """Return the address that the host spells out, in any notation resolvers accept; None for a name that must be resolved."""
    try:
        return [str(answer[4][0]) for answer in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)]
    except (OSError, UnicodeError):
        return None


def addresses_of(host: str, port: int) -> list[str]:
    """Return the host's addresses; none if they are not resolved in time."""
    found = spelled(host, port)
    if found is not None:
        return found
    try:
        return look_up(host, port).result(LOOK_UP_S)
    except (OSError, UnicodeError):  # TimeoutError is an OSError
        return []


def receiver_of(url: str, *, name: str = "url") -> tuple[str, int]:
    """Return host and port of a URL. Raises RejectedError for a URL that webhooks cannot be sent to."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise RejectedError(f"{name} is not a URL.", param=name) from None
    if parts.scheme not in ("https", "http") or not host or not url.isascii() or not url.isprintable() or " " in url:
        raise RejectedError(f"{name} must begin with https:// or http:// and a host.", param=name)
    if parts.username is not None or parts.password is not None:
        raise RejectedError(f"{name} must not contain a user name or password: receivers check the signature.", param=name)
    return host, port or 443


def check_addresses(addresses: Sequence[str], allowed: Sequence[str], *, name: str = "url") -> None:
    """Raise RejectedError unless a connection to each address is allowed."""
    networks = [ipaddress.ip_network(network) for network in allowed]
    if not all(is_allowed(address, networks) for address in addresses):
        raise RejectedError(f"{name} leads to a private or reserved address.", param=name)
