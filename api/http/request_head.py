"""Check a request's head before any route sees it."""

from collections import Counter

from starlette.types import Scope

from api.http.problems import Problem, problem

# If two of these differ, it is unclear which one is meant.
ONCE = (b"authorization", b"idempotency-key", b"x-goog-api-key", b"content-type", b"content-encoding")


def refusal(scope: Scope) -> Problem | None:
    """Return the answer to a head that is ambiguous or names something impossible; None for any other."""
    names = Counter(name for name, _ in scope["headers"])
    if twice := next((name for name in ONCE if names[name] > 1), None):
        return problem(400, "repeated_header", f"the header {twice.decode()} occurs more than once.")
    if b"transfer-encoding" in names and b"content-length" in names:
        # A proxy in front may use the other of the two, and take a part of this request for the next one.
        detail = "a request must have a Content-Length or a Transfer-Encoding, not both."
        return problem(400, "invalid_framing", detail, headers={"Connection": "close"})
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        return problem(400, "invalid_parameter", "a NUL is allowed in texts only, not in a URL.")
    return None
