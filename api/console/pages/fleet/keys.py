"""API keys of a tenant: made, rotated, revoked. A key is on the page that answers its making, and nowhere else."""

from typing import Any

from starlette.responses import Response

from api.console.asking import Ask
from api.console.pages.fleet.area import FLEET, show
from api.console.routing import action, page
from guardfleet.domain.scopes import MANAGE_KEYS, ROLES, SCOPES, scopes_of
from guardfleet.errors import RejectedError
from guardfleet.store import keys
from guardfleet.store.keys import ApiKey

KEYS = f"{FLEET}/keys"
PAGE = 50
MOST_NAME, MOST_DAYS, MOST_HOURS = 200, 3650, 8760


async def listing(ask: Ask) -> Response:
    """Show the keys, and the form of a new one."""
    return await _listing(ask)


async def _listing(ask: Ask, **shown_once: str) -> Response:
    found = await ask.of(keys.of_tenant, ask.db, ask.caller.tenant_id, after=ask.query.get("after"), limit=PAGE + 1)
    values: dict[str, Any] = {
        "keys": [(key, state_of(key)) for key in found[:PAGE]],
        "next_after": found[PAGE - 1].label if len(found) > PAGE else None,
        "roles": [role for role, scopes in ROLES.items() if all(map(ask.may, scopes))],
        "scopes": [scope for scope in SCOPES if ask.may(scope)],
        "made": shown_once,
        "mine": ask.session.who,
    }
    return show(ask, "keys.html", "keys", **values)


async def create(ask: Ask) -> Response:
    """Make a key that may no more than who makes it."""
    name = ask.form.get("name", "").strip()
    if not 0 < len(name) <= MOST_NAME or not name.isprintable():
        raise RejectedError(f"a key needs a name of 1 to {MOST_NAME} printable characters that say what for.", param="name")
    ticked = [value for field, value in ask.fields if field == "scope"]
    scopes = scopes_of(ask.form.get("role", ""), ticked)
    days = ask.number("days", otherwise=0, most=MOST_DAYS)
    expires_s = 86_400.0 * days if days else None
    label, api_key = await ask.of(
        keys.create_for, ask.db, ask.context.keyring, ask.caller, name=name, scopes=scopes, expires_s=expires_s
    )
    return await _listing(ask, label=label, key=api_key)


async def revoke(ask: Ask) -> Response:
    """Revoke a key for good."""
    await ask.of(keys.revoke, ask.db, ask.path["key"], tenant_id=ask.caller.tenant_id)
    return ask.back(KEYS, done="revoked")


async def rotate(ask: Ask) -> Response:
    """Make a key's successor; the key itself is taken for a while longer."""
    hours = ask.number("hours", otherwise=24, most=MOST_HOURS)
    label, api_key = await ask.of(
        keys.rotate, ask.db, ask.context.keyring, ask.path["key"], overlap_s=3600.0 * hours, maker=ask.caller
    )  # fmt: skip
    return await _listing(ask, label=label, key=api_key)


def state_of(key: ApiKey) -> str:
    """Return in a word whether the key is taken."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.has_expired else "in use"


routes = [
    page("/fleet/keys", listing, scope=MANAGE_KEYS),
    action("/fleet/keys", create, scope=MANAGE_KEYS),
    action("/fleet/keys/{key}/revoke", revoke, scope=MANAGE_KEYS),
    action("/fleet/keys/{key}/rotate", rotate, scope=MANAGE_KEYS),
]
