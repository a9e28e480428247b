"""Pages and actions as routes: who may come in, what is read of the body, and which errors become which pages."""

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from api.console.access import Access, require_same_site
from api.console.asking import Ask, form_of, given_csrf
from api.console.navigation import HOME
from api.context import Context

Handler = Callable[[Ask], Awaitable[Response]]
PREFIX = HOME.rstrip("/")  # of paths in logs and metrics
SIGN_IN = f"{HOME}sign-in"
FORM_BYTES = 3  # of a form, for each byte of a JSON body that is allowed: a character that is no letter takes three
MOST_FORM = 1 << 20  # bytes of any other form; a policy has at most a quarter


def page(path: str, handler: Handler, *, scope: str | None = None) -> Route:
    """Return the route of a page at `/console{path}`, for those whose role has the scope; None: for all who are signed in."""

    async def endpoint(request: Request) -> Response:
        request.scope["route"] = named
        ask = await _ask(request)
        if ask is None:
            return _to_sign_in(request)
        await _admit(ask, scope)
        return await handler(ask)

    named = Route(PREFIX + path, endpoint)
    return Route(path, endpoint, methods=["GET"])


def action(
    path: str,
    handler: Handler,
    *,
    scope: str | None = None,
    reads_form: bool = True,
    proves_later: bool = False,
    most_bytes: int | None = MOST_FORM,
) -> Route:
    """Return the route of an action, which a form of the session's own pages sends: of `most_bytes`, or None: as large as JSON.

    Without `reads_form` the body is the handler's to read, and the session is proved by the header alone; with `proves_later` by
    what the handler finds in the body, which calls `require_own_form` before it does anything.
    """

    async def endpoint(request: Request) -> Response:
        request.scope["route"] = named
        ask = await _ask(request)
        if ask is None:
            return _to_sign_in(request)
        if proves_later:
            require_same_site(request, ask.context.settings.console.public_url)
            await _admit(ask, scope)
            return await handler(ask)
        if reads_form:
            as_json = FORM_BYTES * ask.context.settings.tuning.api_max_json_bytes
            ask.fields = await form_of(request, as_json if most_bytes is None else min(as_json, most_bytes))
        ask.access.require_own_form(request, given_csrf(request, ask.form))
        await _admit(ask, scope)
        return await handler(ask)

    named = Route(PREFIX + path, endpoint)
    return Route(path, endpoint, methods=["POST"])


async def _admit(ask: Ask, scope: str | None) -> None:
    if scope is not None:
        ask.require(scope)
    await ask.context.throttle.count(ask.request, ask.caller)


async def _ask(request: Request) -> Ask | None:
    context: Context = request.app.state.context
    access: Access = request.app.state.access
    session = await access.session_of(request)
    if session is None:
        return None
    request.state.session = session
    return Ask(request, context, access, session)


def _to_sign_in(request: Request) -> Response:
    """Send the browser to the sign-in; a page is returned to afterwards, an action is not repeated."""
    to = SIGN_IN if request.method != "GET" else f"{SIGN_IN}?next={_quoted(request)}"
    if "hx-request" in request.headers:
        return Response(status_code=204, headers={"HX-Redirect": SIGN_IN})
    return RedirectResponse(to, 303)


def _quoted(request: Request) -> str:
    query = f"?{request.url.query}" if request.url.query else ""
    return quote(request.url.path + query, safe="")


def local(path: str) -> str:
    """Return the path if it is one of the console's own, else its first page: nobody is sent to another site."""
    return path if path.startswith(HOME) and "\\" not in path and ".." not in path and path.isprintable() else HOME


__all__ = ["SIGN_IN", "Handler", "action", "local", "page"]
