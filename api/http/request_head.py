"""What of a request's head is refused before any route sees it."""

from collections import Counter

from fastapi.responses import JSONResponse
from starlette.types import Scope

from api.http.problems import problem

# Of two that differ, none is surely the one that is meant.
ONCE = (b"authorization", b"idempotency-key", b"x-goog-api-key", b"content-type", b"content-encoding")


def refusal(scope: Scope) -> JSONResponse | None:
    """The answer to a head that is ambiguous, or asks for what nothing can be called; None for any other."""
    names = Counter(name for name, _ in scope["headers"])
    if twice := next((name for name in ONCE if names[name] > 1), None):
        return problem(400, "repeated_header", f"the header {twice.decode()} is there more than once.")
    if b"transfer-encoding" in names and b"content-length" in names:
        # A proxy before this server may go by the other of the two: what it takes for the next request is part of this one.
        detail = "a request has a Content-Length or a Transfer-Encoding, not both."
        return problem(400, "invalid_framing", detail, headers={"Connection": "close"})
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        return problem(400, "invalid_parameter", "a NUL is taken in texts only, not in a URL.")
    return None
