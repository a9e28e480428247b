"""A webhook receiver on loopback."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Receiver:
    """A receiver that answers as told and keeps what it got."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[int], tuple[int, dict[str, str]]] = lambda n: (204, {})
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                status, headers = receiver.answer(len(receiver.got))
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()
    made.thread.join(5)


def raw_server(say: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> tuple[str, Callable[[], None]]:
    """A receiver that sends what it is told on each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
                if context is not None:
                    connection = context.wrap_socket(connection, server_side=True)
                with connection:
                    say(connection)
            except OSError:
                pass

    threading.Thread(target=serve, daemon=True).start()

    def close() -> None:
        ended.set()
        listener.close()

    return f"{'https' if context else 'http'}://127.0.0.1:{listener.getsockname()[1]}/", close


def drip(connection: socket.socket, first: bytes) -> None:
    connection.recv(65_536)
    connection.sendall(first)
    while True:
        time.sleep(0.05)
        connection.sendall(b"x")


def flood(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 20000000\r\n\r\n")
    for _ in range(20):
        connection.sendall(b"x" * 1_000_000)


def hang(connection: socket.socket) -> None:
    """Send nothing until the sender has disconnected."""
    while connection.recv(65_536):
        pass


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
