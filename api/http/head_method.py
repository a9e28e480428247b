"""HEAD of whatever can be got: the head of the answer to GET, and no more of it is made than that takes."""

from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOTHING: Message = {"type": "http.response.body", "body": b"", "more_body": False}


class Headed:
    """Serves HEAD as GET up to the first piece of the body."""

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
                raise ClientDisconnect  # as if nobody listened any more: a stream ends itself
            if message["type"] == "http.response.start":
                await send(message)
            has_ended = message["type"] == "http.response.body" or not _has_length(message)
            if has_ended:
                await send(NOTHING)

        got = {**scope, "method": "GET"}
        with suppress(ClientDisconnect):
            await self._app(got, receive, headed)
        scope["route"] = got.get("route")


def _has_length(message: Message) -> bool:
    """Whether it is known now how long the body is; of a stream without an end it is not waited for the first piece."""
    return any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
