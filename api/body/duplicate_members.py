"""Bodies of JSON in which a member stands twice: which of the two is meant cannot be told, so neither is judged."""

from fastapi import Request

from api.context import context_of
from api.http.problems import ProblemError
from api.http.threads import beside
from guardfleet.rows.json_text import JsonError, Repeated, parse
from guardfleet.rows.words import called


async def unambiguous(request: Request) -> None:
    """Raise ProblemError where any object of the body, which the framework has read, has a member twice."""
    raw = await request.body()
    if raw and (name := await beside(context_of(request).body_threads, _repeated, raw)) is not None:
        raise ProblemError(400, "repeated_key", f"the member {called(name)} is there more than once.")


def _repeated(raw: bytes) -> str | None:
    """A member that is there more than once."""
    try:
        waiting = [parse(raw)]
    except JsonError:  # the framework says so
        return None
    while waiting:
        value = waiting.pop()
        if isinstance(value, Repeated):
            return min(value.names)
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
    return None
