"""The fleet: which workers there are, what queues hold; and the routes of the area's other pages."""

from collections import Counter
from typing import Any

from starlette.responses import Response

from api.console.asking import Ask
from api.console.pages.fleet import audit, deliveries, health, keys, models, sessions
from api.console.pages.fleet.area import show
from api.console.routing import page
from guardfleet.domain.verdict import GUARD
from guardfleet.jobs import deploying
from guardfleet.store import fleet
from guardfleet.store.shards import backlog

SHOWN_S = 86_400.0  # a worker that stopped, or was lost, is shown for so long
POLL_S = 10


async def workers(ask: Ask) -> Response:
    """Show the workers and the queues; of another tenant than `default`, no host and no other tenant's work."""
    sees_all = deploying.may_see(ask.caller)
    known = await ask.of(fleet.known, ask.db, within_s=SHOWN_S)
    wanted = await ask.of(fleet.wanted, ask.db) if sees_all else []
    values: dict[str, Any] = {
        "queues": await ask.of(backlog.queues, ask.db, tenant_id=None if sees_all else ask.caller.tenant_id),
        "wanted": wanted,
        "workers": known if sees_all else [],
        "models": Counter((one.detector or GUARD, one.model, one.revision) for one in known if one.is_there),
        "n_there": sum(one.is_there for one in known),
        "n_lost": sum(one.told == "lost" for one in known),
        "sees_all": sees_all,
        "poll_s": POLL_S,
    }
    if ask.is_fragment:
        return ask.render("fleet/workers_part.html", **values)
    return show(ask, "workers.html", "", **values)


routes = [
    page("/fleet", workers, scope="batches:read"),
    *models.routes,
    *health.routes,
    *deliveries.routes,
    *keys.routes,
    *sessions.routes,
    *audit.routes,
]
