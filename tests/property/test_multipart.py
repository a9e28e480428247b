"""A form means the same in whatever chunks it arrives; an upload is accepted or refused as a whole, in any order of fields."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from starlette.requests import Request

from api.body.multipart import Upload
from api.http.problems import ProblemError

EDGE = b"edge"
LINE = b'{"id": "a", "text": "a kind day"}\n'
PARTS = st.lists(
    st.sampled_from(
        [
            ("file", LINE),
            ("file", b""),
            ("purpose", b"batch"),
            ("purpose", b"vision"),
            ("expires_after[seconds]", b"3600"),
            ("expires_after[anchor]", b"created_at"),
            ("more", b"x" * 5000),
            ("odd", b"\r\n--edg"),
            ("\xff\x00", b"\x00"),
        ]
    ),
    max_size=6,
)
CUTS = st.lists(st.integers(0, 1200), max_size=12)


def part(name: str, value: bytes) -> bytes:
    more = b'; filename="a.jsonl"' if name == "file" else b""
    return b'--%b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n' % (EDGE, name.encode("latin-1"), more, value)


def form(parts: Sequence[tuple[str, bytes]], end: bytes = b"--" + EDGE + b"--\r\n") -> bytes:
    return b"".join(part(*each) for each in parts) + end


def read(pieces: list[bytes]) -> tuple[Any, ...]:
    """All that is known of a form once its pieces have come."""

    async def receive() -> dict[str, Any]:
        body = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    async def run() -> tuple[Any, ...]:
        scope = {"type": "http", "headers": [(b"content-type", b"multipart/form-data; boundary=" + EDGE)]}
        upload, data, before, code = Upload(), b"", None, None
        came: AsyncIterator[bytes] = upload.file_bytes(Request(scope, receive), max_bytes=1 << 20)
        try:
            async for piece in came:
                before = before or dict(upload.before)
                data += piece
        except ProblemError as error:
            return data, before, error.code, error.detail
        return data, before, code, upload.fields, upload.filename

    waiting = list(pieces)
    return asyncio.run(run())


@given(PARTS, CUTS, st.sampled_from([b"--edge--\r\n", b"--edge--\r\nand more", b"", b"nonsense"]))
@example([("file", LINE), ("purpose", b"batch"), ("expires_after[seconds]", b"3600")], [180, 250], b"--edge--\r\n")
def test_a_form_is_the_same_however_it_is_cut(parts: list[tuple[str, bytes]], cuts: list[int], end: bytes) -> None:
    whole = form(parts, end)
    places = [0, *sorted({min(cut, len(whole)) for cut in cuts}), len(whole)]
    pieces = [whole[start:stop] for start, stop in itertools.pairwise(places)]
    assert read(pieces) == read([whole]) == read([whole[i : i + 1] for i in range(len(whole))])


def test_the_fields_before_the_file_are_known_with_its_first_bytes_and_all_of_them_with_its_last() -> None:
    data, before, code, fields, name = read([form([("purpose", b"batch"), ("file", LINE), ("expires_after[seconds]", b"3600")])])
    assert (data, before, code, name) == (LINE, {"purpose": "batch"}, None, "a.jsonl")
    assert fields == {"purpose": "batch", "expires_after[seconds]": "3600"}


def test_fields_are_few_small_and_said_once() -> None:
    for parts, code in (
        ([("file", b"a"), ("file", b"b")], "invalid_multipart"),
        ([("purpose", b"batch"), ("purpose", b"batch")], "invalid_multipart"),
        ([(f"f{i}", b"") for i in range(17)], "too_large"),
        ([("f", b"x" * 5000)], "too_large"),
        ([("purpose", b"batch")], "missing_file"),
    ):
        assert read([form(parts)])[2] == code
