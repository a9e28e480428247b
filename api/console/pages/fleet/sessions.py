"""Sessions: who is signed in to the console in a tenant, and ending one."""

from starlette.responses import Response

from api.console.asking import Ask
from api.console.pages.fleet.area import FLEET, show
from api.console.routing import action, page
from guardfleet.domain.scopes import MANAGE_KEYS
from guardfleet.errors import NotFoundError
from guardfleet.store import sessions

SESSIONS = f"{FLEET}/sessions"
MOST_DIGITS = 18  # of a bigint


async def listing(ask: Ask) -> Response:
    """Show the open sessions."""
    found = await ask.of(sessions.every, ask.db, ask.caller.tenant_id)
    return show(ask, "sessions.html", "sessions", sessions=found, mine=ask.session.id)


async def end(ask: Ask) -> Response:
    """End one."""
    given = ask.path["session"]
    if not (given.isascii() and given.isdecimal() and len(given) <= MOST_DIGITS):
        raise NotFoundError("there is no such session: it has ended.")
    await ask.of(sessions.end_one, ask.db, int(given), tenant_id=ask.caller.tenant_id)
    if int(given) == ask.session.id:
        ask.access.forget(ask.access.token_of(ask.request) or "")
    return ask.back(SESSIONS, done="session_ended")


routes = [
    page("/fleet/sessions", listing, scope=MANAGE_KEYS),
    action("/fleet/sessions/{session}/end", end, scope=MANAGE_KEYS),
]
