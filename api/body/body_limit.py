"""Limit how much of a body is read, how slowly, and from whom.

FastAPI reads a body completely, and before it checks who sends it. So this middleware checks the key first: it waits for no body
without a valid one.
"""

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.body.inline_lines import refuse_packed
from api.body.value_count import Values
from api.context import caller_of
from api.http import request_head
from api.http.problems import ProblemError, unavailable
from guardfleet.errors import RetryableError

# These read the body themselves, after the key, and know their limits.
STREAMED = (("POST", "/v1/files"), ("POST", "/v1/batches"), ("POST", "/v1/lists"), ("POST", "/v1/lists/check"))
CONSOLE = "/console"  # its callers have sessions, not keys, and its forms a limit of their own (api/console/routing.py)
LEAST_BYTES = 1024  # of an incomplete body, for each `pause_s` spent waiting for it


class Bounded:
    """Ends a request whose head is refused, or whose body is too large, says it is, or comes too slowly."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, pause_s: float) -> None:
        self._app, self._max_bytes, self._pause_s = app, max_bytes, pause_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if wrong := request_head.refusal(scope):
            await wrong(scope, receive, send)
            return
        receive = paced(receive, self._pause_s)
        if (scope["method"], scope["path"]) not in STREAMED and not scope["path"].startswith(f"{CONSOLE}/"):
            receive = self._sized(Request(scope), receive)
        await self._app(scope, receive, send)

    def _sized(self, request: Request, receive: Receive) -> Receive:
        said = request.headers.get("content-length", "")
        size, is_known = int(said) if said.isdecimal() else int("transfer-encoding" in request.headers), False
        received, values = 0, Values()

        async def check() -> None:
            nonlocal is_known
            if size and not is_known:
                try:
                    await caller_of(request, request.headers.get("x-goog-api-key", request.query_params.get("key")))
                except RetryableError as error:
                    raise unavailable(request, error) from error  # any other error would be reported as one of the body
                is_known = True
                refuse_packed(request)
            if size > self._max_bytes:
                raise ProblemError(413, "too_large", f"the body is too large: at most {self._max_bytes} bytes are allowed here.")

        async def sized() -> Message:
            nonlocal size, received
            await check()
            message = await receive()
            received += len(message.get("body", b""))
            size = max(size, received)
            await check()
            values.count(message.get("body", b""))
            return message

        return sized


def paced(receive: Receive, pause_s: float) -> Receive:
    """Wrap `receive` so that it raises ProblemError 408 for a body that comes too slowly while it is waited for."""
    waited_s, n, is_whole = 0.0, 0, False

    async def next_message() -> Message:
        nonlocal waited_s, n, is_whole
        if is_whole:  # only the end of the connection can follow
            return await receive()
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(pause_s - waited_s):
                message = await receive()
        except TimeoutError:
            raise _too_slow(pause_s) from None
        waited_s += asyncio.get_running_loop().time() - started
        n += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        if n >= LEAST_BYTES:
            waited_s, n = 0.0, 0
        elif waited_s >= pause_s:
            raise _too_slow(pause_s)
        return message

    return next_message


def _too_slow(pause_s: float) -> ProblemError:
    detail = f"the body comes too slowly: send at least {LEAST_BYTES} bytes in {pause_s:g} s."
    return ProblemError(408, "too_slow", detail, headers={"Connection": "close"})
