"""How much of a body is read: the framework reads it before it asks who sends it, and to its end, wherever that is."""

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.context import caller_of
from api.problems import ProblemError, unavailable
from guardfleet.errors import RetryableError

STREAMED = (("POST", "/v1/files"), ("POST", "/v1/batches"))  # these read by themselves, after the key, and know their bounds
ANYBODY_BYTES = 64 << 10  # of more it has to be known who sends it


class Bounded:
    """Ends a request whose body is, or says it is, larger than it may be."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or (scope["method"], scope["path"]) in STREAMED:
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        said = request.headers.get("content-length", "")
        size, is_known = int(said) if said.isdecimal() else 0, False
        received = 0

        async def check() -> None:
            nonlocal is_known
            if size > ANYBODY_BYTES and not is_known:
                try:
                    await caller_of(request, request.query_params.get("key"))
                except RetryableError as error:
                    raise unavailable(request, error) from error  # any other error would count as one of the body
                is_known = True
            if size > self._max_bytes:
                raise ProblemError(413, "too_large", f"a body has at most {self._max_bytes} bytes here.")

        async def bounded() -> Message:
            nonlocal size, received
            await check()
            message = await receive()
            received += len(message.get("body", b""))
            size = max(size, received)
            await check()
            return message

        await self._app(scope, bounded, send)
