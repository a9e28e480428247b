"""Jobs that callers wait for news of: one look at all of them at once, however many wait, instead of one each.

Invariant: whoever waits is told of a change at the latest LOOK_S behind it, and of none that it has seen already.
"""

import asyncio
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool

from api.http.long_requests import Places
from guardfleet.errors import NotFoundError, RetryableError
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.telemetry.logs import get_logger, told

LOOK_S = 0.25


@dataclass
class _Watched:
    view: JobView | None  # None: it is there no more
    waiting: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Watching:
    """The watched jobs of one API process, and who has a place among those that wait. To be used on one event loop."""

    def __init__(self, db: Database, places: Places) -> None:
        self.places = places
        self._db = db
        self._watched: dict[int, _Watched] = {}
        self._looking: asyncio.Task[None] | None = None

    async def news(self, job: JobView, *, within_s: float) -> JobView:
        """The job once it has come on since `job` was read, or as it was when the time is over; NotFoundError where it has gone."""
        watched = self._watched.setdefault(job.id, _Watched(job))
        watched.waiting += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            if not _is_newer(watched.view, job):
                async with asyncio.timeout(within_s):
                    await watched.news.wait()
        except TimeoutError:
            return job
        finally:
            watched.waiting -= 1
            if not watched.waiting and self._watched.get(job.id) is watched:
                del self._watched[job.id]
        if watched.view is None:
            raise NotFoundError(f"there is no job {job.label}.")
        return watched.view

    def stop(self) -> None:
        """End looking; safe to call twice."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        while self._watched:
            await asyncio.sleep(LOOK_S)
            asked = list(self._watched)  # others come while PostgreSQL answers, and are not in what it says
            try:
                found = await run_in_threadpool(views.get_all, self._db, asked)
            except RetryableError as error:
                get_logger().warning("watching_paused", reason=str(error))
                continue
            except Exception as error:  # noqa: BLE001 - all who wait do so for this one task
                get_logger().error("watching_paused", **told(error))
                continue
            for job_id, watched in self._watched.items():
                if job_id in asked and _has_changed(watched.view, view := found.get(job_id)):
                    watched.view = view
                    watched.news.set()
                    watched.news = asyncio.Event()


def mark(job: JobView) -> tuple[int, int, int, bool]:
    """What is news of a job where it differs."""
    return job.state, job.done, job.total, job.is_paused


def _has_changed(before: JobView | None, now: JobView | None) -> bool:
    return before is None or now is None or (now.seen_at >= before.seen_at and mark(now) != mark(before))


def _is_newer(view: JobView | None, job: JobView) -> bool:
    return view is None or (view.seen_at > job.seen_at and mark(view) != mark(job))
