"""A pooler in transaction mode that does not track prepared statements: each transaction gets the server released last."""

import contextlib
import socket
import struct
import threading
import urllib.parse
from collections.abc import Iterator

ASKS_FOR_AN_ANSWER = (3, 5, 10, 11)  # authentication requests


class Stream:
    """PostgreSQL's messages on one connection."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end

    def read(self, *, has_kind: bool = True) -> tuple[bytes, bytes]:
        """The next message: its kind, and all of its bytes."""
        kind = self._exactly(1) if has_kind else b""
        size = self._exactly(4)
        return kind, kind + size + self._exactly(struct.unpack("!I", size)[0] - 4)

    def _exactly(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            more = self.end.recv(n - len(data))
            if not more:
                raise EOFError
            data += more
        return data


class Pooler:
    """Listens on a free loopback port; clients open server connections, which all clients then share."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._idle: list[Stream] = []
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Let go of everything."""
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = self._listener.accept()
                self._ends.append(end)
                threading.Thread(target=self._serve, args=(Stream(end),), daemon=True).start()

    def _serve(self, client: Stream) -> None:
        with contextlib.suppress(OSError, EOFError):
            server = self._opened(client)
            while True:
                kind, message = client.read()
                if kind == b"X":
                    break
                server = server or self._idle.pop()
                server.end.sendall(message)
                if kind in b"QS":
                    server = _answered(client, server, self._idle)

    def _opened(self, client: Stream) -> None:
        server = Stream(socket.create_connection(self._target))
        self._ends.append(server.end)
        server.end.sendall(client.read(has_kind=False)[1])
        while True:
            kind, message = server.read()
            client.end.sendall(message)
            if kind == b"R" and struct.unpack("!I", message[5:9])[0] in ASKS_FOR_AN_ANSWER:
                server.end.sendall(client.read()[1])
            if kind == b"Z":
                self._idle.append(server)
                return


def _answered(client: Stream, server: Stream, idle: list[Stream]) -> Stream | None:
    """Pass on what the server sends; release the server at the end of a transaction."""
    while True:
        kind, message = server.read()
        is_over = kind == b"Z" and message[5:] == b"I"
        if is_over:
            idle.append(server)
        client.end.sendall(message)
        if kind == b"Z":
            return None if is_over else server


@contextlib.contextmanager
def pooled(url: str) -> Iterator[str]:
    """The URL of the same database through such a pooler."""
    parts = urllib.parse.urlsplit(url)
    assert parts.hostname
    assert parts.port
    pooler = Pooler((parts.hostname, parts.port))
    through = url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{pooler.port}")
    try:
        yield f"{through}?sslmode=disable&gssencmode=disable"
    finally:
        pooler.stop()
