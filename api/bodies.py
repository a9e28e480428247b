"""Lines of a request's body, numbered as they come: compressed or not, never more than a few thousand and one line in memory."""

import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import zstandard
from fastapi import Request

from api.context import Context
from api.problems import ProblemError
from guardfleet.lines import LineCutter, NumberedLine
from guardfleet.rows import longest_line

CONTENT_TYPES = ("application/jsonl", "application/x-ndjson", "application/x-jsonlines")
LINES_AT_ONCE = 2048  # handed to the store's thread together
INFLATED_BYTES = 1 << 20  # at once
ZSTD_SLICE = 512  # a block of 4 bytes can stand for 128 KiB: so much is 16 MiB at most


async def numbered_lines(request: Request, context: Context) -> AsyncIterator[list[NumberedLine]]:
    """The body's lines, some at a time. Raises ProblemError where it is too large, inflated."""
    cutter, received = LineCutter(longest_line(context.settings.max_text_bytes)), 0
    lines: list[NumberedLine] = []
    async for chunk in _inflated(request):
        received += len(chunk)
        if received > context.settings.api_max_body_bytes:
            raise too_large(context)
        lines += cutter.cut(chunk)
        if len(lines) >= LINES_AT_ONCE:
            yield lines
            lines = []
    yield [*lines, *cutter.end()]


def check_headers(request: Request, context: Context) -> None:
    """Raise ProblemError for what can be refused before the body is read."""
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding not in INFLATE:
        detail = f"send the body as {', '.join(INFLATE)}."
        raise ProblemError(415, "unsupported_encoding", detail, headers={"Accept-Encoding": ", ".join(INFLATE)})
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > context.settings.api_max_body_bytes:
        raise too_large(context)


def too_large(context: Context) -> ProblemError:
    """The refusal."""
    return ProblemError(413, "too_large", f"a body has at most {context.settings.api_max_body_bytes} bytes.")


async def _inflated(request: Request) -> AsyncIterator[bytes]:
    name = request.headers.get("content-encoding", "identity").lower()
    inflate = INFLATE[name]()
    try:
        async for chunk in request.stream():
            for piece in inflate.pieces(chunk):
                yield piece
    except (zlib.error, zstandard.ZstdError):
        inflate.is_whole = False
    if not inflate.is_whole:
        raise ProblemError(400, "invalid_encoding", f"the body is not whole as {name}.")


class _Plain:
    is_whole = True

    def pieces(self, chunk: bytes) -> Iterable[bytes]:
        return (chunk,)


class _Gzip:
    """One member or more, as they may follow each other."""

    def __init__(self) -> None:
        self.is_whole = False
        self._machine = zlib.decompressobj(31)

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        while chunk:
            if self._machine.eof:
                self._machine = zlib.decompressobj(31)
            yield self._machine.decompress(chunk, INFLATED_BYTES)
            chunk = self._machine.unused_data if self._machine.eof else self._machine.unconsumed_tail
        self.is_whole = self._machine.eof


class _Zstd:
    """One frame or more."""

    def __init__(self) -> None:
        self.is_whole = False
        self._machine = self._fresh()

    def pieces(self, chunk: bytes) -> Iterator[bytes]:
        for at in range(0, len(chunk), ZSTD_SLICE):
            rest = chunk[at : at + ZSTD_SLICE]
            while rest:
                if self._machine.eof:
                    self._machine = self._fresh()
                yield self._machine.decompress(rest)
                rest = self._machine.unused_data if self._machine.eof else b""
        self.is_whole = self._machine.eof

    @staticmethod
    def _fresh() -> Any:
        return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()


INFLATE: dict[str, Callable[[], _Plain | _Gzip | _Zstd]] = {"identity": _Plain, "gzip": _Gzip, "zstd": _Zstd}
