"""Webhooks: a tenant's endpoints, how deliveries to them went, and sending again. The rules are the API's own."""

from typing import Any, TypeVar

import pydantic
from starlette.responses import Response

from api.console.asking import Ask
from api.console.pages.fleet.area import FLEET, show
from api.console.routing import action, page
from api.http.fields import Asked
from api.routes import webhook_endpoints
from api.routes.webhook_endpoints import EndpointChanges, NewEndpoint, Recovery, Rotation, Test
from guardfleet.domain import ids
from guardfleet.domain.events import KINDS
from guardfleet.domain.moments import moment_of
from guardfleet.domain.states import DeliveryState
from guardfleet.errors import RejectedError
from guardfleet.store.events import endpoints, history

DELIVERIES = f"{FLEET}/deliveries"
PAGE = 50
STATES = {state.name.lower(): state for state in DeliveryState}
OPEN = (DeliveryState.PENDING, DeliveryState.SENDING)
A = TypeVar("A", bound=Asked)


async def listing(ask: Ask) -> Response:
    """Show the endpoints, and the form of a new one."""
    return await _listing(ask)


async def _listing(ask: Ask, status: int = 200, **shown_once: str) -> Response:
    tenant = ask.caller.tenant_id
    found = await ask.of(endpoints.page, ask.db, tenant_id=tenant, after=None, limit=endpoints.MOST)
    tallies = await ask.of(history.tallies, ask.db, tenant_id=tenant)
    values: dict[str, Any] = {"endpoints": found, "tallies": tallies, "kinds": KINDS, "may_write": ask.may("webhooks:write")}
    return show(ask, "endpoints.html", "deliveries", status, **values, made=shown_once)


async def create(ask: Ask) -> Response:
    """Create an endpoint; its secret is on this page, and on no other."""
    kinds = [value for name, value in ask.fields if name == "kind"]
    asked = _asked(NewEndpoint, name=ask.form.get("name", "").strip(), url=ask.form.get("url", "").strip(), event_types=kinds)
    made = await webhook_endpoints.create(asked, ask.context, ask.caller)
    return await _listing(ask, name=made["name"], secret=made["signing_secret"])


async def one(ask: Ask) -> Response:
    """Show an endpoint and its deliveries."""
    return await _one(ask)


async def _one(ask: Ask, **shown_once: str) -> Response:
    tenant, public_id = ask.caller.tenant_id, ids.ENDPOINT.parse(ask.path["endpoint"])
    endpoint = await ask.of(endpoints.get, ask.db, public_id, tenant_id=tenant)
    state = STATES.get(ask.query.get("state", ""))
    before = ask.number("before", otherwise=0) or None
    found = await ask.of(
        endpoints.deliveries, ask.db, public_id, tenant_id=tenant, before=before, limit=PAGE + 1, state=state
    )  # fmt: skip
    values: dict[str, Any] = {
        "endpoint": endpoint,
        "deliveries": [(delivery, DeliveryState(delivery.state).name.lower()) for delivery in found[:PAGE]],
        "next_before": found[PAGE - 1].id if len(found) > PAGE else None,
        "states": STATES,
        "state": ask.query.get("state", "") if state is not None else "",
        "open_states": [one.name.lower() for one in OPEN],
        "may_write": ask.may("webhooks:write"),
        "kinds": endpoint.kinds,
        "made": shown_once,
    }
    return show(ask, "endpoint.html", "deliveries", **values)


async def delivery(ask: Ask) -> Response:
    """Show each attempt of a delivery."""
    tenant, public_id = ask.caller.tenant_id, ids.ENDPOINT.parse(ask.path["endpoint"])
    endpoint = await ask.of(endpoints.get, ask.db, public_id, tenant_id=tenant)
    number = _number(ask)
    found = await ask.of(endpoints.deliveries, ask.db, public_id, tenant_id=tenant, before=number + 1, limit=1)
    if not found or found[0].id != number:
        raise endpoints.unknown_delivery()
    attempts = await ask.of(history.attempts, ask.db, public_id, number, tenant_id=tenant)
    state = DeliveryState(found[0].state)
    return show(
        ask, "delivery.html", "deliveries", endpoint=endpoint, one=found[0], state=state.name.lower(), attempts=attempts,
        is_ended=state not in OPEN, may_write=ask.may("webhooks:write"),
    )  # fmt: skip


async def retry(ask: Ask) -> Response:
    """Send one ended delivery again."""
    await webhook_endpoints.retry(ask.path["endpoint"], _number(ask), ask.context, ask.caller)
    return ask.back(_address(ask), done="resent")


async def recover(ask: Ask) -> Response:
    """Send all deliveries again that were given up, of events since a time."""
    since = moment_of(ask.form.get("since", "").strip(), "since")
    asked = _asked(Recovery, since=max(0, int(since.timestamp())))
    done = await webhook_endpoints.recover(ask.path["endpoint"], asked, ask.context, ask.caller)
    return ask.back(_address(ask), done="resent" if done["deliveries"] else "nothing_resent")


async def test(ask: Ask) -> Response:
    """Send a made-up event, and say how it went."""
    asked = _asked(Test, event_type=ask.form.get("kind", ""))
    await webhook_endpoints.test(ask.path["endpoint"], asked, ask.context, ask.caller)
    return ask.back(_address(ask), done="tested")


async def switch(ask: Ask) -> Response:
    """Enable or disable the endpoint."""
    enabled = ask.form.get("enabled") == "yes"
    await webhook_endpoints.update(ask.path["endpoint"], EndpointChanges(enabled=enabled), ask.context, ask.caller)
    return ask.back(_address(ask), done="enabled" if enabled else "disabled")


async def rotate(ask: Ask) -> Response:
    """Give the endpoint a new secret; it is on this page, and on no other."""
    asked = Rotation(keep_old_secret_active_for_24_hours=ask.form.get("keep") == "yes")
    made = await webhook_endpoints.rotate(ask.path["endpoint"], ask.context, ask.caller, asked)
    return await _one(ask, name=made["name"], secret=made["signing_secret"])


async def delete(ask: Ask) -> Response:
    """Delete the endpoint and its deliveries."""
    await webhook_endpoints.delete(ask.path["endpoint"], ask.context, ask.caller)
    return ask.back(DELIVERIES, done="deleted")


def _number(ask: Ask) -> int:
    given = ask.path["delivery"]
    if not (given.isascii() and given.isdecimal() and len(given) < 19):  # noqa: PLR2004 - digits of a bigint
        raise endpoints.unknown_delivery()
    return int(given)


def _address(ask: Ask) -> str:
    return f"{DELIVERIES}/{ids.ENDPOINT.of(ids.ENDPOINT.parse(ask.path['endpoint']))}"


def _asked(kind: type[A], **values: object) -> A:
    """Return what a form asks for. Raises RejectedError with what is wrong with it."""
    try:
        return kind(**values)
    except pydantic.ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'][:1]))}: {one['msg']}" for one in error.errors(include_input=False))
        raise RejectedError(f"this cannot be: {wrong}.") from None


routes = [
    page("/fleet/deliveries", listing, scope="webhooks:read"),
    action("/fleet/deliveries", create, scope="webhooks:write"),
    page("/fleet/deliveries/{endpoint}", one, scope="webhooks:read"),
    page("/fleet/deliveries/{endpoint}/{delivery}", delivery, scope="webhooks:read"),
    action("/fleet/deliveries/{endpoint}/recover", recover, scope="webhooks:write"),
    action("/fleet/deliveries/{endpoint}/test", test, scope="webhooks:write"),
    action("/fleet/deliveries/{endpoint}/switch", switch, scope="webhooks:write"),
    action("/fleet/deliveries/{endpoint}/rotate", rotate, scope="webhooks:write"),
    action("/fleet/deliveries/{endpoint}/delete", delete, scope="webhooks:write"),
    action("/fleet/deliveries/{endpoint}/{delivery}/retry", retry, scope="webhooks:write"),
]
