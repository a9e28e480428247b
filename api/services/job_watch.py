"""Watch jobs for callers that wait for news: one query for all of them, however many wait.

Invariant: a caller learns of a change at most LOOK_S after it, and never of one that it has seen already.
"""

import asyncio
from dataclasses import dataclass, field

from starlette.concurrency import run_in_threadpool

from api.http.long_requests import Slots
from guardfleet.errors import NotFoundError, RetryableError
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.telemetry.logs import get_logger, told

LOOK_S = 0.25


@dataclass
class _Watched:
    view: JobView | None  # None: the job no longer exists
    waiting: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Watching:
    """The watched jobs of one API process, and the slots of those that wait. For one event loop only."""

    def __init__(self, db: Database, slots: Slots) -> None:
        self.slots = slots
        self._db = db
        self._watched: dict[int, _Watched] = {}
        self._looking: asyncio.Task[None] | None = None

    async def news(self, job: JobView, *, within_s: float) -> JobView:
        """Return the job once it has changed since `job` was read, or `job` when time is up. NotFoundError if it is gone."""
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
        """Stop watching; safe to call twice."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        while self._watched:
            await asyncio.sleep(LOOK_S)
            asked = list(self._watched)  # more may come while PostgreSQL answers, and are not in its answer
            try:
                found = await run_in_threadpool(views.get_all, self._db, asked)
            except RetryableError as error:
                get_logger().warning("watching_paused", reason=str(error))
                continue
            except Exception as error:  # noqa: BLE001 - all waiting callers depend on this one task
                get_logger().error("watching_paused", **told(error))
                continue
            for job_id, watched in self._watched.items():
                if job_id in asked and _has_changed(watched.view, view := found.get(job_id)):
                    watched.view = view
                    watched.news.set()
                    watched.news = asyncio.Event()


def mark(job: JobView) -> tuple[int, int, int, bool]:
    """Return what makes news of a job when it changes."""
    return job.state, job.done, job.total, job.is_paused


def _has_changed(before: JobView | None, now: JobView | None) -> bool:
    return before is None or now is None or (now.seen_at >= before.seen_at and mark(now) != mark(before))


def _is_newer(view: JobView | None, job: JobView) -> bool:
    return view is None or (view.seen_at > job.seen_at and mark(view) != mark(job))
