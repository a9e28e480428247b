"""A connection without a client: what is sent is said byte by byte, and what comes back is read to its end."""

import socket

from tests.services.patience import patience

PATIENCE_S = patience(20.0)


def opened(address: tuple[str, int], said: bytes = b"", *, reads: bool = True) -> socket.socket:
    """A connection on which this was said; one that does not read takes in hardly anything."""
    wire = socket.socket()
    if not reads:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    wire.settimeout(PATIENCE_S)
    wire.connect(address)
    wire.sendall(said)
    return wire


def answer(wire: socket.socket) -> bytes:
    """All that is said on it until it is closed."""
    said = b""
    try:
        while more := wire.recv(65536):
            said += more
    except ConnectionResetError:
        pass
    wire.close()
    return said


def get(path: str, *more: str) -> bytes:
    """A request without a body, with these headers more."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *more, "", ""]).encode()
