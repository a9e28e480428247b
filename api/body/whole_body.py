"""A body that a route reads itself and as a whole, since it is no JSON of ours: no more of it than the route takes."""

from fastapi import Request

from api.http.problems import ProblemError


def kind_of(request: Request) -> str:
    """Return the content type, without its parameters."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


async def received(request: Request, *, most: int, what: str) -> bytes:
    """Return the body. Raises ProblemError 413 once it is, or says it is, longer than `most` bytes; `what` begins the reason."""
    too_large = ProblemError(413, "too_large", f"{what} has at most {most} bytes.")
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > most:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise too_large
    return bytes(body)
