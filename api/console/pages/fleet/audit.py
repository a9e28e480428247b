"""The audit trail of a tenant: who did what to what, newest first."""

from typing import Any

from starlette.responses import Response

from api.console.asking import Ask
from api.console.pages.fleet.area import FLEET, show
from api.console.routing import page
from guardfleet.domain import ids
from guardfleet.domain.actions import ACTIONS, ACTORS
from guardfleet.domain.moments import moment_of
from guardfleet.domain.scopes import AUDIT
from guardfleet.errors import RejectedError
from guardfleet.store import audit, keys
from guardfleet.store.audit import Event, Wanted

PAGE = 50
FILTERS = ("actor", "action", "subject", "since", "until")
# Where a subject's page is, by the word before the dot of the action.
PLACES = {
    "job": "/console/jobs/{}",
    "endpoint": f"{FLEET}/deliveries/{{}}",
    "deployment": f"{FLEET}/models/{{}}",
    "key": f"{FLEET}/keys#{{}}",
    "policy": "/console/policies",
    "list": "/console/lists",
}
GONE = ("job.expire", "job.erase", "endpoint.delete")  # what these were done to has no page any more


async def listing(ask: Ask) -> Response:
    """Show the rows that are asked for."""
    asked = {name: ask.query[name].strip() for name in FILTERS if ask.query.get(name, "").strip()}
    if not all(value.isprintable() for value in asked.values()):
        raise RejectedError("a filter holds a character that cannot be shown.")
    if asked.get("action", next(iter(ACTIONS))) not in ACTIONS:
        raise RejectedError("there is no such action: choose one of the list.", param="action")
    wanted = Wanted(
        tenant_id=ask.caller.tenant_id,
        since=moment_of(asked["since"], "since") if "since" in asked else None,
        until=moment_of(asked["until"], "until") if "until" in asked else None,
        actor=asked.get("actor"),
        actions=(asked["action"],) if "action" in asked else None,
        subject=_subject(asked["subject"]) if "subject" in asked else None,
    )
    after = None
    if given := ask.query.get("after"):
        after = await ask.of(audit.position, ask.db, ids.AUDIT.parse(given), tenant_id=ask.caller.tenant_id)
    found = await ask.of(audit.page, ask.db, wanted, after=after, limit=PAGE + 1, newest_first=True)
    labels = [name for event in found for name in (event.actor, event.subject) if name.startswith(ids.KEY.prefix)]
    names = await ask.of(keys.names, ask.db, ask.caller.tenant_id, labels) if labels else {}
    values: dict[str, Any] = {
        "events": [(event, place_of(event)) for event in found[:PAGE]],
        "next_after": found[PAGE - 1].label if len(found) > PAGE else None,
        "names": names,
        "asked": asked,
        "actions": sorted(ACTIONS),
        "actors": ACTORS,
    }
    return show(ask, "audit.html", "audit", **values)


def place_of(event: Event) -> str | None:
    """Return the address of the subject's page; None if it has none."""
    place = PLACES.get(event.action.partition(".")[0])
    return None if place is None or event.action in GONE else place.format(event.subject)


def _subject(given: str) -> str:
    """Return the subject as the trail has it: a job that the API calls a batch is a job here."""
    return given.replace(ids.BATCH.prefix, ids.JOB.prefix, 1) if given.startswith(ids.BATCH.prefix) else given


routes = [page("/fleet/audit", listing, scope=AUDIT)]
