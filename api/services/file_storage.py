"""Store the contents of uploaded files: encrypted chunk by chunk, at `files_url` (a folder, s3://bucket/prefix, ...).

A chunk is bound to its file, its number and whether it is the last, so none can be swapped, dropped or cut off unnoticed. Chunks
have one size, so that any part of a file can be read without what precedes it.
"""

import hashlib
import pathlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from guardfleet.errors import AwayError, ConfigurationError, RetryableError
from guardfleet.process import disk
from guardfleet.security.encryption import OVERHEAD_BYTES, Keyring
from guardfleet.telemetry import metrics

CHUNK_BYTES = 1 << 20
LEAST_FREE_BYTES = 1 << 30  # less is said


class Contents:
    """Contents by public id under one URL. Raises ConfigurationError if fsspec cannot serve it. Blocks: not for the event loop."""

    def __init__(self, url: str, keyring: Keyring) -> None:
        try:
            self._fs, self._root = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as error:  # names the missing package, or the known protocols
            raise ConfigurationError(f"files_url: {error}") from error
        self._makes_folders = isinstance(self._fs, LocalFileSystem)  # elsewhere this would create a bucket for a mistyped name
        self._keyring = keyring

    def writer(self, file_id: uuid.UUID, data_key: bytes) -> "Writer":
        """Return a writer of a new content; a context manager that deletes what it wrote unless it is closed."""
        with _translated():
            if self._makes_folders:
                self._fs.makedirs(self._root, exist_ok=True)
            return Writer(self._fs, self._path(file_id), self._keyring, data_key, file_id)

    def read(self, file_id: uuid.UUID, data_key: bytes, *, size: int, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """Yield bytes `start` to `stop` of a content of `size` bytes, chunk by chunk."""
        stop = size if stop is None else min(stop, size)
        if start >= stop:
            return
        last = max(0, size - 1) // CHUNK_BYTES
        with _translated(FileNotFoundError):
            opened = self._fs.open(self._path(file_id), "rb")
        with opened as stored:
            for no in range(start // CHUNK_BYTES, (stop - 1) // CHUNK_BYTES + 1):
                with _translated():
                    stored.seek(no * (CHUNK_BYTES + OVERHEAD_BYTES))
                    sealed = stored.read(CHUNK_BYTES + OVERHEAD_BYTES)
                plain = self._keyring.decrypt_bytes(
                    data_key, sealed, associated_data=_associated_data(file_id, no, is_last=no == last)
                )
                at = no * CHUNK_BYTES
                yield plain[max(0, start - at) : stop - at]

    def nearly_full(self) -> str | None:
        """Return that a local folder has little room left, or None; an object store has no end."""
        if not self._makes_folders:
            return None
        free = disk.free_bytes(pathlib.Path(self._root))
        metrics.FILES_FREE.set(free)
        return f"{free >> 20} MiB are free for uploaded files" if free < LEAST_FREE_BYTES else None

    def delete(self, file_id: uuid.UUID) -> None:
        """Delete a content; safe to call twice."""
        with suppress(FileNotFoundError), _translated(FileNotFoundError):
            self._fs.rm_file(self._path(file_id))

    def _path(self, file_id: uuid.UUID) -> str:
        return f"{self._root}/{file_id.hex}"


class Writer:
    """Writes one content; holds at most one chunk in memory."""

    def __init__(self, fs: Any, path: str, keyring: Keyring, data_key: bytes, file_id: uuid.UUID) -> None:
        self._fs, self._path, self._keyring, self._data_key, self._file_id = fs, path, keyring, data_key, file_id
        self._stored = fs.open(path, "wb")
        self._chunk = bytearray()
        self._no = 0
        self._digest = hashlib.sha256()
        self._is_closed = False
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._is_closed:
            self.discard()

    def write(self, data: bytes) -> None:
        """Append data."""
        self.size += len(data)
        self._digest.update(data)
        self._chunk += data
        while len(self._chunk) > CHUNK_BYTES:  # a full chunk waits, since it may be the last
            self._put(bytes(self._chunk[:CHUNK_BYTES]), is_last=False)
            del self._chunk[:CHUNK_BYTES]

    def close(self) -> bytes:
        """Complete the content and return its SHA-256."""
        self._put(bytes(self._chunk), is_last=True)
        with _translated():
            self._stored.close()
        self._is_closed = True
        return self._digest.digest()

    def discard(self) -> None:
        """Delete what was written; safe to call twice."""
        for end in (self._stored.close, lambda: self._fs.rm_file(self._path)):
            with suppress(RetryableError), _translated():
                end()

    def _put(self, plain: bytes, *, is_last: bool) -> None:
        sealed = self._keyring.encrypt_bytes(
            self._data_key, plain, associated_data=_associated_data(self._file_id, self._no, is_last=is_last)
        )
        with _translated():
            self._stored.write(sealed)
        self._no += 1


@contextmanager
def _translated(*told: type[Exception]) -> Iterator[None]:
    """Turn any error of the storage into a RetryableError, except those that the caller wants `told`."""
    try:
        yield
    except told:
        raise
    except Exception as error:
        raise AwayError("file storage", f"the file storage did not answer: {type(error).__name__}") from error


def _associated_data(file_id: uuid.UUID, no: int, *, is_last: bool) -> bytes:
    return b"file/%s/%d/%d" % (file_id.hex.encode(), no, is_last)
