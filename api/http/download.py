"""Serve files: ETag, ranges, and the first chunk read before the answer begins."""

import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from api.http.head_method import has_body
from api.http.threads import in_thread

BINARY = "application/octet-stream"
HEADERS = {
    "ETag": {"description": "Changes only with the content.", "schema": {"type": "string"}},
    "Accept-Ranges": {"schema": {"const": "bytes"}},
}
PARTS: dict[int | str, dict[str, Any]] = {  # what `serve` answers, as the OpenAPI tells it
    200: {"description": "The content.", "headers": HEADERS, "content": {BINARY: {}}},
    206: {"description": "The part that was asked for.", "headers": HEADERS, "content": {BINARY: {}}},
    304: {"description": "Nothing has changed.", "headers": HEADERS},
    416: {"description": "The content has no such part."},
}
MOST_DIGITS = 18  # of a position in a file; a longer one is behind the end of any file


async def serve(
    request: Request,
    etag: str,
    filename: str,
    size: Callable[[], int],
    read: Callable[[int, int | None], Iterator[bytes]],
    *,
    begins: Callable[[], object],
) -> Response:
    """Serve the bytes that `read` yields, completely or the part that `Range` names; 304 if the caller has them already.

    `begins` is called before the first of them is read for an answer that has a body; it may raise.
    """
    headers = {
        "ETag": f'"{etag}"',
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(filename, safe='')}",
    }
    known = request.headers.get("if-none-match", "")
    if f'"{etag}"' in known or known.strip() == "*":
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range")
    if wanted and request.headers.get("if-range", f'"{etag}"') == f'"{etag}"' and wanted.startswith("bytes=") and "," not in wanted:
        total = await in_thread(size)
        part = _part(wanted, total)
        if part is None:
            return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{total}"})
        await _tell(request, begins)
        start, stop = part
        headers |= {"Content-Range": f"bytes {start}-{stop - 1}/{total}", "Content-Length": str(stop - start)}
        return StreamingResponse(await _begun(read(start, stop)), 206, headers, media_type=BINARY)
    await _tell(request, begins)
    return StreamingResponse(await _begun(read(0, None)), 200, headers, media_type=BINARY)


async def _tell(request: Request, begins: Callable[[], object]) -> None:
    if has_body(request):
        await in_thread(begins)


async def _begun(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Return the same iterator with its first chunk read, so that an early failure is an error and not a 200 that breaks off."""
    return chain((await in_thread(next, chunks, b""),), chunks)


def _part(wanted: str, total: int) -> tuple[int, int] | None:
    """Return first byte and end (exclusive) of a single range; None if it contains none of the file's bytes."""
    found = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", wanted)
    if not found or not any(found.groups()):
        return None
    first, last = (digits and digits.lstrip("0")[:MOST_DIGITS].rjust(1, "0") for digits in found.groups())
    start, stop = (int(first), int(last) + 1 if last else total) if first else (max(0, total - int(last)), total)
    stop = min(stop, total)
    return (start, stop) if start < stop else None
