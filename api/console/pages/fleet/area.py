"""What the pages of the fleet share: the links between them, for those who may follow them."""

from typing import Any, NamedTuple

from starlette.responses import Response

from api.console.asking import Ask
from guardfleet.domain.scopes import AUDIT, MANAGE_KEYS
from guardfleet.jobs import deploying

FLEET = "/console/fleet"


class Tab(NamedTuple):
    """A page of the area: its address, its name, the scope that opens it, and whether it concerns all tenants."""

    path: str
    name: str
    scope: str
    is_for_all: bool = False


TABS = (
    Tab(FLEET, "Workers", "batches:read"),
    Tab(f"{FLEET}/models", "Models", "batches:read", is_for_all=True),
    Tab(f"{FLEET}/health", "Health", "batches:read"),
    Tab(f"{FLEET}/deliveries", "Deliveries", "webhooks:read"),
    Tab(f"{FLEET}/keys", "Keys", MANAGE_KEYS),
    Tab(f"{FLEET}/sessions", "Sessions", MANAGE_KEYS),
    Tab(f"{FLEET}/audit", "Audit trail", AUDIT),
)


def show(ask: Ask, template: str, tab: str, status: int = 200, **values: Any) -> Response:
    """Return a page of the area; `tab`: the last part of the address of the link that leads here."""
    sees_all = deploying.may_see(ask.caller)
    tabs = [one for one in TABS if ask.may(one.scope) and (sees_all or not one.is_for_all)]
    here = FLEET if not tab else f"{FLEET}/{tab}"
    return ask.render(f"fleet/{template}", status, tabs=tabs, tab=here, fleet=FLEET, **values)
