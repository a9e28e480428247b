"""Bodies of JSON in which a member stands twice: which of the two is meant cannot be told, so neither is judged."""

from fastapi import Request

from api.problems import ProblemError
from guardfleet.domain.json_text import JsonError, Repeated, parse
from guardfleet.domain.words import called


async def unambiguous(request: Request) -> None:
    """Raise ProblemError where any object of the body, which the framework has read, has a member twice."""
    raw = await request.body()
    try:
        waiting = [parse(raw)] if raw else []
    except JsonError:  # the framework says so
        return
    while waiting:
        value = waiting.pop()
        if isinstance(value, Repeated):
            raise ProblemError(400, "repeated_key", f"the member {called(min(value.names))} is there more than once.")
        if isinstance(value, dict | list):
            waiting += value.values() if isinstance(value, dict) else value
