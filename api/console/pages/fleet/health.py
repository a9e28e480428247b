"""Health: what this API process says of itself, and what the rows say of all other processes."""

from starlette.responses import Response

from api.console.asking import Ask
from api.console.pages.fleet.area import show
from api.console.routing import page
from guardfleet.jobs import deploying, fleet_diagnosis
from guardfleet.telemetry.health import Status


async def health(ask: Ask) -> Response:
    """Show it, in sentences. Hosts and users are named to those alone who may change the fleet."""
    mine = ask.context.health
    await ask.of(mine.refresh)
    report = mine.report()
    if not deploying.may_change(ask.caller):
        report = report.in_public()
    found = await ask.of(fleet_diagnosis.of_fleet, ask.db, ask.context.settings) if deploying.may_see(ask.caller) else []
    worst = Status.DEGRADED if any(not one.is_well for one in found) else Status.HEALTHY
    return show(
        ask, "health.html", "health", report=report, word=report.status.name.lower(), found=found, whole=min(report.status, worst)
    )


routes = [page("/fleet/health", health, scope="batches:read")]
