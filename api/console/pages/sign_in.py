"""Sign in by an API key, and out again."""

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from api.console.access import Access, require_same_site
from api.console.asking import NOTICES, Ask, form_of, language_of
from api.console.navigation import HOME
from api.console.rendering import render
from api.console.routing import SIGN_IN, action, local
from api.context import Context
from api.http.threads import in_thread
from guardfleet.domain.actions import KEY
from guardfleet.store import audit, keys, sessions

MOST_BYTES = 16_384  # of the form, from anybody
REFUSED = 401
WRONG_KEY = "No key in use is this one: keys begin with gf_, and `guardfleet keys list` shows which are in use."


async def show(request: Request) -> Response:
    """Show the form."""
    request.scope["route"] = of_form
    notice = NOTICES.get(request.query_params.get("done", ""))
    return _form(request, 200, notice=notice, to=request.query_params.get("next", HOME))


async def by_key(request: Request) -> Response:
    """Sign the owner of a key in."""
    request.scope["route"] = of_form
    context: Context = request.app.state.context
    access: Access = request.app.state.access
    require_same_site(request, context.settings.console.public_url)
    form = dict(await form_of(request, MOST_BYTES))
    to = local(form.get("next", HOME))
    given = form.get("key", "").strip()
    caller = await in_thread(keys.authenticate, context.db, context.keyring, given) if given else None
    if caller is None:
        access.count_failure(request)
        return _form(request, REFUSED, error=WRONG_KEY, to=to)
    audit.act_as(audit.Actor(KEY, caller.label, request.state.request_id))
    await access.end(request)
    token = await in_thread(sessions.begin_by_key, context.db, caller, hours=context.settings.console.session_hours)
    response = RedirectResponse(to, 303)
    access.remember(request, response, token)
    return response


async def out(ask: Ask) -> Response:
    """Sign out."""
    await ask.access.end(ask.request)
    response = RedirectResponse(f"{SIGN_IN}?done=signed_out", 303)
    ask.access.clear(ask.request, response)
    return response


def _form(request: Request, status: int, *, to: str, notice: str | None = None, error: str | None = None) -> Response:
    context: Context = request.app.state.context
    values = {"next": local(to), "theme": "auto", "notice": notice, "error": error, "oidc": context.settings.console.oidc_issuer}
    return HTMLResponse(render("sign_in.html", language=language_of(request, None), **values), status)


of_form = Route("/console/sign-in", show)  # of logs and metrics
routes = [
    Route("/sign-in", show, methods=["GET"]),
    Route("/sign-in", by_key, methods=["POST"]),
    action("/sign-out", out),
]
