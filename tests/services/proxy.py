"""A proxy between a process and its server that can go half-open (accept bytes and pass none on) and cut its connections.

It can also tell what the server did not say: another version, in the same number of bytes.
"""

import contextlib
import pathlib
import socket
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from types import MappingProxyType

Address = tuple[str, int] | str  # host and port, or the path of a Unix socket


class Proxy:
    """Listens on a free loopback port, or at a path, and forwards to `target`."""

    def __init__(self, target: Address, listen: str | None = None, told: Mapping[bytes, bytes] = MappingProxyType({})) -> None:
        self._target, self._told = target, told
        assert all(len(said) == len(instead) for said, instead in told.items())
        family = socket.AF_UNIX if listen else socket.AF_INET
        self._server = socket.socket(family)
        self._server.bind(listen or ("127.0.0.1", 0))
        self._server.listen(256)
        if listen:
            pathlib.Path(listen).chmod(0o777)
        self.port = 0 if listen else int(self._server.getsockname()[1])
        self._flowing = threading.Event()
        self._flowing.set()
        self._is_away = False
        self._lock = threading.Lock()
        self._carried: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Go half-open: connections stay open, new ones are accepted, nothing passes."""
        self._flowing.clear()

    def cut(self) -> None:
        """Break all connections, and pass new ones on again."""
        with self._lock:
            carried, self._carried = self._carried, set()
        for end in carried:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._flowing.set()

    def go_away(self) -> None:
        """Break all connections, and close each new one at once, like a server that has ended."""
        self._is_away = True
        self.cut()

    def come_back(self) -> None:
        """Pass new connections on again."""
        self._is_away = False

    def stop(self) -> None:
        """Let go of everything."""
        self._server.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        if self._is_away:
            near.close()
            return
        self._flowing.wait()
        far = socket.socket(socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
        with self._lock:
            self._carried |= {near, far}
        try:
            far.connect(self._target)
        except OSError:
            near.close()
            return
        back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        back.start()
        self._pump(near, far)
        back.join()
        with self._lock:
            self._carried -= {near, far}
        near.close()
        far.close()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._flowing.wait()
                for said, instead in self._told.items():
                    data = data.replace(said, instead)
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def in_front_of(url: str, told: Mapping[bytes, bytes] = MappingProxyType({})) -> Iterator[tuple[Proxy, str]]:
    """A proxy before the server of this URL, and the URL that goes through it. `told`: what is passed on in place of what."""
    parts = urllib.parse.urlsplit(url)
    assert parts.hostname
    assert parts.port
    proxy = Proxy((parts.hostname, parts.port), told=told)
    try:
        yield proxy, url.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{proxy.port}")
    finally:
        proxy.stop()
