"""Decompress an input as it comes; the compression is detected from its first bytes, whatever its name.

Memory is constant however far a stream inflates: it is pulled chunk by chunk. A damaged stream yields what precedes the damage.
"""

import gzip
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

from guardfleet.errors import ConfigurationError, RejectedError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    try:
        from backports import zstd
    except ImportError:  # an extra; most files are not zstd
        zstd = None  # type: ignore[assignment]

CHUNK_BYTES = 256 << 10  # of a file, or what a pipe has so far
HEAD_BYTES = 64 << 10  # inspected before anything is decided
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
SKIPPABLE = b"\x2a\x4d\x18"  # preceded by a byte from 50 to 5f: a zstd frame without data
STDIN = "-"
WINDOW_LOG = 27  # 128 MiB, like --long on zstd's command line


def shown(name: str) -> str:
    """Return a file's name as text that can be stored and shown, even if it has no valid encoding."""
    return name.encode("utf-8", "backslashreplace").decode()


def comes_once(path: str) -> bool:
    """Return whether the input can be read only once: standard input, a pipe, a device, anything but a regular file."""
    if path == STDIN:
        return True
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - as it is opened
    except OSError:
        return False  # opening it raises the reason


def identity_of(path: str) -> object:
    """Return what two names of one input share. Raises OSError."""
    if not comes_once(path):
        return path
    found = os.fstat(_stdin()) if path == STDIN else os.stat(path)  # noqa: PTH116
    return found.st_dev, found.st_ino


def _stdin() -> int:
    """Return the descriptor of standard input. Raises RejectedError if it is closed."""
    if sys.stdin is None:
        raise RejectedError("standard input is closed.")
    return sys.stdin.fileno()


class _Readable(Protocol):
    def read(self, n: int = -1, /) -> bytes: ...


class Source(Protocol):
    """Anything that yields bytes; `damage` says, once all were read, what cut them off."""

    damage: str | None

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes, once."""


class Head:
    """The first bytes of a source, as if they were all of it."""

    def __init__(self, head: bytes) -> None:
        self.damage: str | None = None
        self._head = head

    def chunks(self) -> Iterator[bytes]:
        """Yield the only chunk."""
        return iter((self._head,))


class Stream:
    """An open input. `head` are its first bytes, decompressed; `damage` says, once all was read, what cut it off."""

    def __init__(self, path: str, file: BinaryIO | None = None) -> None:
        """Open the path, or read the file that is open under this name."""
        self.path = path
        self.damage: str | None = None
        self._comes_once = file is None and comes_once(path)
        self._file = file or _opened(path)
        self._start = _first(self._file)
        self.compression = _compression(self._start)
        self.is_short = False  # whether the head is all of it
        self._chunks = self._inflated()
        self.head = self._look()

    def chunks(self) -> Iterator[bytes]:
        """Yield everything from the beginning, once."""
        with self._file:
            if self.head:
                yield self.head
            yield from self._chunks

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _look(self) -> bytes:
        head = bytearray()
        while len(head) < HEAD_BYTES:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.is_short = True
                break
            head += chunk
            if self._comes_once and b"\n" in head:
                break  # do not keep a writer waiting that writes into a pipe line by line
        return bytes(head)

    def _inflated(self) -> Iterator[bytes]:
        chunks = {"gzip": _gunzip, "zstd": _unzstd, None: _plain}[self.compression](_Resumed(self._start, self._file))
        try:
            yield from chunks
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            kind = "ends in the middle" if isinstance(error, EOFError) else "is damaged"
            self.damage = f"the {self.compression} stream {kind}: the rest is missing"
        except OSError as error:
            raise RejectedError(f"{self.path} cannot be read: {error.strerror or type(error).__name__}.") from error


class _Resumed:
    """A file whose first bytes were read already."""

    def __init__(self, start: bytes, file: BinaryIO) -> None:
        self._start, self._file = start, file

    def read(self, n: int = -1, /) -> bytes:
        """Read up to `n` bytes, as many as are available."""
        if self._start:
            out, self._start = self._start[:n] if n >= 0 else self._start, self._start[n:] if n >= 0 else b""
            return out
        return self._file.read1(n) if hasattr(self._file, "read1") else self._file.read(n)


def _opened(path: str) -> BinaryIO:
    try:
        return os.fdopen(os.dup(_stdin()), "rb") if path == STDIN else open(path, "rb")  # noqa: PTH123 - closed by the stream
    except OSError as error:
        raise RejectedError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from error


def _first(file: BinaryIO) -> bytes:
    """Read enough bytes to detect the compression; fewer only at the end of the file."""
    out = b""
    try:
        while len(out) < len(ZSTD) and (more := file.read(len(ZSTD) - len(out))):
            out += more
    except OSError as error:
        raise RejectedError(f"{file.name} cannot be read: {error.strerror or type(error).__name__}.") from error
    return out


def _compression(start: bytes) -> str | None:
    if start.startswith(GZIP):
        return "gzip"
    if start == ZSTD or (start[1:] == SKIPPABLE and start[0] >> 4 == 5):  # noqa: PLR2004 - defined by the format
        return "zstd"
    return None


def _plain(file: _Readable) -> Iterator[bytes]:
    return iter(lambda: file.read(CHUNK_BYTES), b"")


def _gunzip(file: Any) -> Iterator[bytes]:
    """Decompress consecutive members as one stream; zeros after the last are padding."""
    with gzip.GzipFile(fileobj=file) as whole:
        yield from iter(lambda: whole.read1(CHUNK_BYTES), b"")


def _unzstd(file: Any) -> Iterator[bytes]:
    """Decompress consecutive frames as one stream."""
    if zstd is None:
        raise ConfigurationError("zstd needs backports.zstd: pip install 'guardfleet[producer]'.")
    try:
        with zstd.ZstdFile(file, options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG}) as whole:
            yield from iter(lambda: whole.read1(CHUNK_BYTES), b"")
    except zstd.ZstdError as error:
        raise zlib.error(str(error)) from error
