"""What every answer below /console says to browsers, and the page that stands there for a refusal from before the console's own."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.console.navigation import HOME
from api.http.problems import PAGES, Problem
from api.http.threads import in_thread

# Everything that a page loads comes from here, and nothing is written in it: no script, no style, no form to elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; report-uri /console/csp"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "x-frame-options": "DENY",
}
FOREVER = "public, max-age=31536000, immutable"  # of files whose address changes with their content
FILES = f"{HOME}static/"
FOUND = 200


class Shielded:
    """Gives each answer below /console the headers that keep a page to itself and out of every cache; a refusal becomes a page.

    It is around everything else, since a request may be refused, or fail, before the console sees it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not is_below(scope["path"]):
            await self._app(scope, receive, send)
            return
        scope[PAGES] = _page
        is_file = scope["path"].startswith(FILES)

        async def shielded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", ())
                known = {name.lower() for name, _ in given}
                mine = {**HEADERS, "cache-control": FOREVER} if is_file and message["status"] == FOUND else HEADERS
                more = ((name.encode(), value.encode()) for name, value in mine.items() if name.encode() not in known)
                message["headers"] = [*given, *more]
            await send(message)

        await self._app(scope, receive, shielded)


def is_below(path: str) -> bool:
    """Return whether the console answers there."""
    return f"{path}/".startswith(HOME)


def malformed(path: str, answer: Problem) -> Response:
    """Return the answer to a request that is no HTTP, and whose path is all that could be read: a page, if it is the console's."""
    if not is_below(path):
        return answer
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "state": {}}
    page = _rendered(scope, answer)
    page.headers.update(HEADERS)
    return page


async def _page(scope: Scope, refused: Problem) -> Response:
    return await in_thread(_rendered, scope, refused)


def _rendered(scope: Scope, refused: Problem) -> Response:
    from api.console.refusing import page_of  # noqa: PLC0415 - templates cost time and memory: only where somebody looks

    return page_of(Request(scope), refused.status_code, refused.detail, refused.given)
