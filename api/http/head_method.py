"""Serve HEAD for everything that has GET: the head of that answer, producing as little of the body as possible."""

from contextlib import suppress

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADED = "guardfleet.headed"  # in the scope: the caller asked for HEAD
NOTHING: Message = {"type": "http.response.body", "body": b"", "more_body": False}


class Headed:
    """Serves HEAD as GET, up to the first chunk of the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        has_ended = False

        async def headed(message: Message) -> None:
            nonlocal has_ended
            if has_ended:
                raise ClientDisconnect  # as if the client had left: a stream ends itself
            if message["type"] == "http.response.start":
                await send(message)
            has_ended = message["type"] == "http.response.body" or not _has_length(message)
            if has_ended:
                await send(NOTHING)

        got = {**scope, "method": "GET", HEADED: True}
        with suppress(ClientDisconnect):
            await self._app(got, receive, headed)
        scope["route"] = got.get("route")


def has_body(request: Request) -> bool:
    """Return whether the answer's body is sent: not for HEAD, which routes see as GET."""
    return not request.scope.get(HEADED, False)


def _has_length(message: Message) -> bool:
    """Return whether the body's length is known now; of an endless stream, the first chunk is not waited for."""
    return any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
