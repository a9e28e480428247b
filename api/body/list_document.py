"""Read a list from a body: CSV, JSON lines or a term a line, by its content type, and no more of it than a list may have."""

from fastapi import Request

from api.body.whole_body import kind_of, received
from api.context import Context
from api.http.problems import ProblemError
from api.http.threads import beside
from guardfleet.lists import reading
from guardfleet.lists.document import Entry

KINDS = {"text/csv": "csv", "application/jsonl": "jsonl", "application/x-ndjson": "jsonl", "text/plain": "txt"}
MOST_BYTES = 16 << 20
BODY = {"requestBody": {"required": True, "content": {kind: {"schema": {"type": "string"}} for kind in KINDS}}}


async def sent(request: Request) -> tuple[bytes, str]:
    """Return the list as it was sent, and its format. Raises ProblemError for another content type, or too many bytes."""
    form = KINDS.get(kind_of(request))
    if form is None:
        raise ProblemError(415, "unsupported_content_type", f"send the list as {', '.join(KINDS)}.")
    return await received(request, most=MOST_BYTES, what="a list sent over HTTP"), form


async def entries_of(context: Context, body: bytes, form: str) -> list[Entry]:
    """Return the entries. Raises ListError with everything that is wrong, ProblemError for what is not UTF-8."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise ProblemError(400, "invalid_encoding", "a list must be in UTF-8.") from None
    return await beside(context.body_threads, reading.read, text, form)
