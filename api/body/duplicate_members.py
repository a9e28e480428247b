"""Refuse JSON bodies with repeated members: it is unclear which one is meant, so neither is judged."""

from fastapi import Request

from api.context import context_of
from api.http.problems import ProblemError
from api.http.threads import beside
from guardfleet.rows.json_text import JsonError, Repeated, parse
from guardfleet.rows.words import called


async def unambiguous(request: Request) -> None:
    """Raise ProblemError if an object in the body, which the framework has read, repeats a member."""
    raw = await request.body()
    if raw and (name := await beside(context_of(request).body_threads, _repeated, raw)) is not None:
        raise ProblemError(400, "repeated_key", f"the member {called(name)} occurs more than once.")


def _repeated(raw: bytes) -> str | None:
    """Return a repeated member's name, or None."""
    try:
        waiting = [parse(raw)]
    except JsonError:  # the framework reports it
        return None
    while waiting:
        value = waiting.pop()
        if isinstance(value, Repeated):
            return min(value.names)
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    return None
