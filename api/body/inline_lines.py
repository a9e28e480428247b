"""Read a body as numbered lines while it arrives, compressed or not; decompressed and cut beside the event loop, block by block.

The cost of a body is limited by its bytes as received, its bytes decompressed, and the number of its compressed parts.
"""

import hashlib
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from fastapi import Request

from api.context import Context
from api.http.problems import ProblemError
from api.http.threads import beside
from guardfleet.jobs.intake import COMMIT_S
from guardfleet.rows.lines import LineCutter, NumberedLine
from guardfleet.rows.row import longest_line

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CONTENT_TYPES = ("application/jsonl", "application/x-ndjson", "application/x-jsonlines")
BLOCK_BYTES = 256 << 10  # decompressed, cut and taken in together: about 2,000 lines
PACKED_BYTES = 64 << 10  # the same, compressed
PART_BYTES = 4096  # counted at least for a gzip member or a zstd frame: an empty one has 20 bytes and takes as long
WINDOW_LOG = 27  # 128 MiB, like --long on zstd's command line
MOST_TIMES, MOST_TIMES_FROM = 1000, 32 << 20  # deflate reaches 1,032; zstd 30,000, for content without information


class BodyLines:
    """The lines of one body; can be read once. `digest` is that of the decompressed body, once all of it was read."""

    def __init__(self, request: Request, context: Context) -> None:
        self._request, self._context = request, context
        self._packing = request.headers.get("content-encoding", "identity").lower()
        self._unpack = UNPACK[self._packing]()
        self._cutter = LineCutter(longest_line(context.settings.intake.max_text_bytes))
        self._came_bytes = self._bytes = self._counted_bytes = 0
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> bytes:
        """SHA-256 of what was read."""
        return self._digest.digest()

    async def blocks(self) -> AsyncIterator[list[NumberedLine]]:
        """Yield some lines at a time. Raises ProblemError if the body is too large or incomplete."""
        async for came in _gathered(self._request.stream(), self._unpack.block_bytes):
            self._came_bytes += len(came)
            chunks = self._unpack.chunks(came)
            while (lines := await beside(self._context.body_threads, self._next, chunks)) is not None:
                if lines:
                    yield lines
        if not self._unpack.is_whole:
            raise self._damaged()
        yield self._cutter.end()

    async def read(self) -> None:
        """Read the whole body for its digest."""
        async for _ in self.blocks():
            pass

    def _next(self, chunks: Iterator[bytes]) -> list[NumberedLine] | None:
        """Return the lines of the next chunk, skipping chunks without any; None at the end."""
        found: list[NumberedLine] = []
        until = self._counted_bytes + BLOCK_BYTES
        try:
            for chunk in chunks:
                self._count(len(chunk))
                self._digest.update(chunk)
                found += self._cutter.cut(chunk)
                if found or self._counted_bytes >= until:
                    return found
        except (zlib.error, zstd.ZstdError):
            raise self._damaged() from None
        return found or None

    def _count(self, n: int) -> None:
        self._bytes += n
        self._counted_bytes = max(self._bytes, self._came_bytes, self._unpack.parts * PART_BYTES)
        if self._counted_bytes > self._context.settings.api.max_body_bytes:
            raise too_large(self._context)
        if self._bytes > max(MOST_TIMES_FROM, MOST_TIMES * self._came_bytes):
            raise ProblemError(413, "too_large", f"a body may decompress to at most {MOST_TIMES:,} times its size.")

    def _damaged(self) -> ProblemError:
        return ProblemError(400, "invalid_encoding", f"the body is incomplete or damaged as {self._packing}.")


def refuse_packed(request: Request) -> None:
    """Raise ProblemError for a compressed body where only lines may be compressed."""
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        detail = "send this body without a Content-Encoding: only lines sent to POST /v1/batches may be compressed."
        raise ProblemError(415, "unsupported_encoding", detail, headers={"Accept-Encoding": "identity"})


def check_headers(request: Request, context: Context) -> None:
    """Raise ProblemError for what can be refused before the body is read."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in UNPACK:
        detail = f"this Content-Encoding is not supported: use {', '.join(UNPACK)}."
        raise ProblemError(415, "unsupported_encoding", detail, headers={"Accept-Encoding": ", ".join(UNPACK)})
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > context.settings.api.max_body_bytes:
        raise too_large(context)


def too_large(context: Context) -> ProblemError:
    """Return the refusal of a body that is too large."""
    return ProblemError(413, "too_large", f"the body is too large: at most {context.settings.api.max_body_bytes} bytes.")


async def _gathered(chunks: AsyncIterator[bytes], n: int) -> AsyncIterator[bytes]:
    """Regroup a stream into blocks of `n` bytes, so that each costs the same; of a slow body, yield what has arrived."""
    block, begun = bytearray(), time.monotonic()
    async for chunk in chunks:
        for at in range(0, len(chunk), n):
            block += chunk[at : at + n]
            if len(block) >= n or time.monotonic() - begun > COMMIT_S:
                yield bytes(block)
                block, begun = bytearray(), time.monotonic()
    if block:
        yield bytes(block)


class Unpacking(Protocol):
    """A way to decompress a body. `parts`: how many have begun; `is_whole`: the last one has ended."""

    block_bytes: int
    parts: int
    is_whole: bool

    def chunks(self, block: bytes) -> Iterator[bytes]:
        """Yield the next bytes, decompressed, at most BLOCK_BYTES at once."""


class _Plain:
    block_bytes, parts, is_whole = BLOCK_BYTES, 0, True

    def chunks(self, block: bytes) -> Iterator[bytes]:
        yield block


class _Gzip:
    """One or more consecutive members."""

    block_bytes = PACKED_BYTES

    def __init__(self) -> None:
        self.is_whole, self.parts = False, 1
        self._machine = zlib.decompressobj(31)

    def chunks(self, block: bytes) -> Iterator[bytes]:
        while block:
            if self._machine.eof:
                self._machine, self.parts = zlib.decompressobj(31), self.parts + 1
            chunk = self._machine.decompress(block, BLOCK_BYTES)
            block = self._machine.unused_data if self._machine.eof else self._machine.unconsumed_tail
            self.is_whole = self._machine.eof
            yield chunk


class _Zstd:
    """One or more frames."""

    block_bytes = PACKED_BYTES

    def __init__(self) -> None:
        self.is_whole, self.parts = False, 1
        self._machine = self._fresh()

    def chunks(self, block: bytes) -> Iterator[bytes]:
        while block or not (self._machine.needs_input or self._machine.eof):
            if self._machine.eof:
                self._machine, self.parts = self._fresh(), self.parts + 1
            chunk = self._machine.decompress(block, BLOCK_BYTES)
            block = self._machine.unused_data if self._machine.eof else b""
            self.is_whole = self._machine.eof
            yield chunk

    @staticmethod
    def _fresh() -> Any:
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: WINDOW_LOG})


UNPACK: dict[str, Callable[[], Unpacking]] = {"identity": _Plain, "gzip": _Gzip, "zstd": _Zstd}
