"""Sign in by OpenID Connect; loaded only where the settings name an issuer, since it needs an HTTP client."""

from hmac import compare_digest

import orjson
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from api.console import oidc
from api.console.access import Access
from api.console.navigation import HOME
from api.console.routing import local
from api.context import Context
from api.http.threads import in_thread
from guardfleet.domain.actions import PERSON
from guardfleet.settings.groups import ConsoleSettings
from guardfleet.store import audit, sessions


async def elsewhere(request: Request) -> Response:
    """Send the browser to the identity provider."""
    request.scope["route"] = named
    access: Access = request.app.state.access
    begun = oidc.attempt(local(request.query_params.get("next", HOME)))
    response = RedirectResponse(await oidc.Issuer(_settings(request)).address(begun), 303)
    access.begin_attempt(request, response, orjson.dumps(list(begun)).decode())
    return response


async def back(request: Request) -> Response:
    """Sign in whom the identity provider sends back, in the browser that it was sent from."""
    request.scope["route"] = named
    context: Context = request.app.state.context
    access: Access = request.app.state.access
    begun = access.attempt_of(request)
    given = request.query_params
    attempt = oidc.Attempt(*orjson.loads(begun)) if begun else None
    if attempt is None or not compare_digest(given.get("state", "").encode(), attempt.state.encode()) or not given.get("code"):
        raise oidc.refused()
    claims = await oidc.Issuer(_settings(request)).claims(attempt, given["code"])
    person = await in_thread(oidc.person_of, context.db, claims, context.settings.console)
    audit.act_as(audit.Actor(PERSON, person.who, request.state.request_id))
    await access.end(request)
    token = await in_thread(sessions.begin, context.db, person, hours=context.settings.console.session_hours)
    response = RedirectResponse(local(attempt.to), 303)
    access.remember(request, response, token)
    access.end_attempt(request, response)
    return response


def _settings(request: Request) -> ConsoleSettings:
    context: Context = request.app.state.context
    return context.settings.console


named = Route("/console/sign-in/oidc", elsewhere)  # of logs and metrics
routes = [Route("/sign-in/oidc", elsewhere, methods=["GET"]), Route("/sign-in/callback", back, methods=["GET"])]
