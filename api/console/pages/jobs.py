"""Jobs: the list, a job's page, and what may be done to one. A job is submitted in `jobs_new`."""

from functools import partial
from typing import Any

from starlette.responses import Response

from api.console.asking import Ask
from api.console.pages import jobs_new
from api.console.routing import action, page
from api.http.problems import ProblemError
from api.routes import batches, results, retries
from api.routes.results import MEDIA
from guardfleet.domain import ids
from guardfleet.domain.options import PRIORITIES
from guardfleet.domain.states import DeliveryState, JobState
from guardfleet.jobs import diagnosis
from guardfleet.jobs.overview import overview
from guardfleet.store.events import endpoints
from guardfleet.store.jobs import control, sampled, unprocessed, views
from guardfleet.store.jobs.views import JobView

SHOWN = 20  # jobs of a page
REFUSED_SHOWN, LINES_SHOWN = 10, 100  # on a job's page, and on a page of their own
MOST_NAME = 200
STATES = tuple(state.label for state in JobState)


async def listing(ask: Ask) -> Response:
    """Show a page of the list; to htmx, its table alone."""
    states, name, after = ask.query.get("state"), ask.query.get("name"), ask.query.get("after")
    if states not in (None, *STATES):
        raise ProblemError(400, "invalid_parameter", f"state must be one of: {', '.join(STATES)}.", param="state")
    found = await ask.of(
        views.page,
        ask.db,
        tenant_id=ask.caller.tenant_id,
        after=ids.JOB.parse(after) if after else None,
        limit=SHOWN + 1,
        states=None if states is None else [JobState[states.upper()]],
        name=None if name is None else name.replace("\0", "")[:MOST_NAME],
    )
    jobs = found[:SHOWN]
    still = await ask.of(diagnosis.explain_all, ask.db, jobs, ask.context.settings)
    values: dict[str, Any] = {
        "jobs": jobs,
        "still": still,
        "state": states,
        "name": name or "",
        "states": STATES,
        "next": jobs[-1].label if len(found) > SHOWN else None,
        "after": after,
        "price": ask.context.settings.price_per_device_hour,
        "is_live": any(not job.state.is_final for job in jobs),
    }
    return ask.render("jobs/table.html" if ask.is_fragment else "jobs/list.html", **values)


async def show(ask: Ask) -> Response:
    """Show a job; to htmx, its progress alone, or with what was counted of its verdicts, if `counted` asks for that."""
    job, key = await _job(ask), ask.query.get("key")
    still = await ask.of(diagnosis.explain, ask.db, job, ask.context.settings)
    values: dict[str, Any] = {"job": job, "still": still, "price": ask.context.settings.price_per_device_hour}
    if ask.is_fragment and "counted" not in ask.query:
        return ask.render("jobs/progress.html", **values)
    values |= {"seen": await ask.of(overview, ask.db, job, key), "key": key}
    if ask.is_fragment:
        return ask.render("jobs/renewed.html", **values)
    values |= {
        "errors": await ask.of(sampled.errors, ask.db, job),
        "refused": await ask.of(lambda: list(unprocessed.refused(ask.db, job, limit=REFUSED_SHOWN)) if job.rejected else []),
        "deliveries": await ask.of(endpoints.deliveries_of, ask.db, job.public_id, tenant_id=ask.caller.tenant_id)
        if ask.may("webhooks:read")
        else [],
        "delivery_states": {int(state): state.name.lower() for state in DeliveryState},
        "formats": tuple(MEDIA),
        "priorities": PRIORITIES,
        "ids": ids,
    }
    return ask.render("jobs/job.html", **values)


async def cancel(ask: Ask) -> Response:
    """Cancel a job."""
    return _back(ask, await batches.cancelled(ask.path["job"], ask.context, ask.caller), "job_cancelled")


async def pause(ask: Ask) -> Response:
    """Pause a job."""
    return _back(ask, await batches.changed(ask.path["job"], ask.context, ask.caller, control.pause), "job_paused")


async def resume(ask: Ask) -> Response:
    """Resume a job."""
    return _back(ask, await batches.changed(ask.path["job"], ask.context, ask.caller, control.resume), "job_resumed")


async def prioritise(ask: Ask) -> Response:
    """Change a job's priority."""
    await _job(ask)
    given = ask.form.get("priority", "").strip()
    if not (given.isascii() and given.removeprefix("-").isdecimal()) or len(given) > 4:  # noqa: PLR2004 - -100
        raise ProblemError(400, "invalid_parameter", f"a priority must be {PRIORITIES.start} to {PRIORITIES.stop - 1}.")
    change = partial(control.prioritise, priority=control.check_priority(int(given)))
    return _back(ask, await batches.changed(ask.path["job"], ask.context, ask.caller, change), "job_prioritised")


async def retry(ask: Ask) -> Response:
    """Judge the texts with these errors again, as a new job."""
    codes = [value for name, value in ask.fields if name == "error"]
    return _back(ask, await retries.judged_again(ask.request, ask.context, ask.caller, ask.path["job"], codes), "job_retried")


async def download(ask: Ask) -> Response:
    """Download a job's verdicts, as the API's route does; it records the export, so a form asks for it, and no link."""
    fmt = ask.form.get("format", "jsonl")
    if fmt not in MEDIA:
        raise ProblemError(400, "invalid_parameter", f"format must be one of: {', '.join(MEDIA)}.", param="format")
    return await results.download(
        ask.request, ask.path["job"], ask.context, ask.caller, fmt,  # type: ignore[arg-type]
        spreadsheet_safe=fmt == "csv", with_retries="with_retries" in ask.form,
    )  # fmt: skip


async def refused(ask: Ask) -> Response:
    """Show a job's refused lines, page by page."""
    job, after = await _job(ask), ask.number("after", otherwise=0, most=2**31 - 1)
    found = await ask.of(lambda: list(unprocessed.refused(ask.db, job, limit=LINES_SHOWN + 1, after=after - 1)))
    shown = found[:LINES_SHOWN]
    following = shown[-1]["line"] + 1 if len(found) > len(shown) else None
    return ask.render("jobs/refused.html", job=job, refused=shown, next=following)


async def _job(ask: Ask) -> JobView:
    return await ask.of(views.get, ask.db, ids.JOB.parse(ask.path["job"]), tenant_id=ask.caller.tenant_id)


def _back(ask: Ask, job: JobView, done: str) -> Response:
    return ask.back(f"/console/jobs/{job.label}", done=done)


READ, WRITE = "batches:read", "batches:write"
routes = [
    page("/jobs", listing, scope=READ),
    *jobs_new.routes,
    page("/jobs/{job}", show, scope=READ),
    page("/jobs/{job}/refused", refused, scope=READ),
    action("/jobs/{job}/download", download, scope=READ),
    action("/jobs/{job}/cancel", cancel, scope=WRITE),
    action("/jobs/{job}/pause", pause, scope=WRITE),
    action("/jobs/{job}/resume", resume, scope=WRITE),
    action("/jobs/{job}/priority", prioritise, scope=WRITE),
    action("/jobs/{job}/retry", retry, scope=WRITE),
]
