"""`guardfleet jobs`: list jobs, newest first, a page at a time, from a database or over HTTP."""

import datetime as dt
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from rich.table import Table

from guardfleet.cli import DONE, progress, terminal
from guardfleet.domain import ids
from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.domain.states import JobState
from guardfleet.embedded.stack import database_of
from guardfleet.errors import RejectedError
from guardfleet.settings import Settings
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database


@dataclass(frozen=True, slots=True)
class Line:
    """A job as the list shows it."""

    job: str
    name: str
    state: str
    total: int
    done: int
    failed: int
    created_at: dt.datetime
    retry_of: str | None = None
    retries: tuple[str, ...] = ()


def listing(settings: Settings, *, state: str | None, name: str | None, after: str | None, limit: int, as_json: bool) -> int:
    """Print one page."""
    if settings.api_url is not None:
        from guardfleet.cli.commands import remote

        if state or name:
            raise RejectedError("--state and --name do not work over HTTP: leave them out, or list at the database.")
        found = remote.listing(settings, after=after, limit=limit)
    else:
        states = None if state is None else _states(state)
        with database_of(settings) as complete, closing(Database(complete.required("database_url"), pool_size=1)) as db:
            position = ids.JOB.parse(after) if after else None
            page = views.page(db, tenant_id=DEFAULT_TENANT, after=position, limit=limit, states=states, name=name)
        found = [_line(job) for job in page]
    if as_json:
        for line in found:
            print(json.dumps(_as_dict(line)))
        return DONE
    terminal.say(_table(found) if found else "no jobs", to=terminal.answers if found else terminal.notes)
    if len(found) == limit:
        terminal.say(f"more: guardfleet jobs --after {found[-1].job}")
    return DONE


def _states(label: str) -> list[int]:
    known = {state.label: int(state) for state in JobState}
    if label not in known:
        raise RejectedError(f"state {label!r} is unknown; use one of {', '.join(known)}.")
    return [known[label]]


def _line(job: JobView) -> Line:
    state = "paused" if job.is_paused else job.state.label
    return Line(job.label, job.name, state, job.total, job.done, job.error, job.created_at, *_links(job))


def _links(job: JobView) -> tuple[str | None, tuple[str, ...]]:
    return ids.JOB.of(job.retry_of) if job.retry_of else None, tuple(map(ids.JOB.of, job.retries))


def _table(found: Sequence[Line]) -> Table:
    """Build the table. Ids and numbers are never cut; at 80 columns only the caller's own name is."""
    now = dt.datetime.now(dt.UTC)
    rows = [
        (
            line.job,
            progress.duration((now - line.created_at).total_seconds()),
            line.state,
            f"{line.total:,}",
            f"{line.done / line.total:.0%}" if line.total else "-",
            f"retry: {line.name}" if line.retry_of else line.name,
        )
        for line in found
    ]
    names = ("job", "age", "state", "texts", "done", "name")
    return terminal.listed(names, rows, to=terminal.answers, numbers=("age", "texts", "done"), cut="name")


def _as_dict(line: Line) -> dict[str, object]:
    numbers = {"total": line.total, "done": line.done, "failed": line.failed}
    links = {"retry_of": line.retry_of, "retries": line.retries}
    return {"job": line.job, "name": line.name, "state": line.state, **numbers, "created_at": line.created_at.isoformat(), **links}
