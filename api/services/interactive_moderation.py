"""Judge texts while the caller waits: stored and published in the interactive lane, and notified when they are done.

Invariant: a waiting request listens before its job can be done, and also polls every second, so a lost notification or message
only costs time. A wait that times out cancels the job: nobody would read its verdict.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from starlette.concurrency import run_in_threadpool

from api.http.problems import ProblemError
from guardfleet.broker.celery_app import MODERATE, Publisher, make_app
from guardfleet.domain.lanes import Lane
from guardfleet.domain.options import JobOptions
from guardfleet.errors import OverloadedError, RetryableError
from guardfleet.jobs.submit import judge_now
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store.jobs import control, interactive, notify
from guardfleet.store.jobs.interactive import OnlineJob
from guardfleet.store.postgres.database import Database
from guardfleet.telemetry.logs import get_logger, told
from guardfleet.verdicts.page import Page

LOOK_S = 1.0
LISTEN_S = 0.5
RECONNECT_S = 1.0
AWAY_S = 5.0  # how long a broker that did not answer is not tried again
MOST_WAITING = 512
RESERVED = 64  # job ids reserved at once
RETRY_S = 1.0
NOBODY_S = 1


class Online:
    """The interactive requests of one API process."""

    def __init__(self, db: Database, keyring: Keyring, settings: Settings) -> None:
        self._db, self._keyring, self._settings = db, keyring, settings
        self._waiting: dict[int, asyncio.Event] = {}
        self._reserved: deque[int] = deque()
        self._publisher: Publisher | None = None
        self._publishing = threading.Lock()
        self._away_until = 0.0  # monotonic time until which the broker is not tried: it did not answer
        self._stopped = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._listen, name="online-listen", daemon=True)

    def start(self) -> None:
        """Start listening; call it on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; waiting requests keep polling."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        with self._publishing:
            if self._publisher is not None:
                self._publisher.close()

    async def judge(
        self,
        rows: Sequence[PayloadRow],
        *,
        tenant_id: int,
        model: str | None,
        detectors: Sequence[str] | None = None,
        keeps_nothing: bool = False,
    ) -> tuple[OnlineJob, Page]:
        """Return the verdicts of these texts, in order. Raises ProblemError 503 if they do not come in time.

        `detectors`: who judges, as in a plan; None: the guard. With `keeps_nothing` the texts are deleted in the commit of their
        verdicts.
        """
        options = interactive.options_of(model, detectors)
        if len(self._waiting) >= MOST_WAITING:
            raise OverloadedError(f"{MOST_WAITING} requests already wait for their verdict.", retry_after_s=RETRY_S)
        if not self._reserved:
            self._reserved.extend(await run_in_threadpool(interactive.reserve, self._db, RESERVED))
        job_id = self._reserved.popleft()
        done = self._waiting[job_id] = asyncio.Event()
        try:
            job = await run_in_threadpool(self._submit, job_id, rows, tenant_id, options, keeps_nothing)
            async with asyncio.timeout(self._settings.api.moderation_timeout_s):
                while True:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(done.wait(), LOOK_S)
                    done.clear()
                    page = await run_in_threadpool(interactive.found, self._db, job)
                    if page is not None:
                        return job, page
        except TimeoutError:
            await run_in_threadpool(control.cancel, self._db, job_id)
            detail = f"no verdict in {self._settings.api.moderation_timeout_s:g} s: is a worker running?"
            raise ProblemError(503, "deadline_exceeded", detail, headers={"Retry-After": str(NOBODY_S)}) from None
        finally:
            del self._waiting[job_id]

    def _submit(
        self, job_id: int, rows: Sequence[PayloadRow], tenant_id: int, options: JobOptions, keeps_nothing: bool
    ) -> OnlineJob:
        job = judge_now(self._db, self._keyring, job_id, rows, options, tenant_id=tenant_id, keeps_nothing=keeps_nothing)
        if self._settings.broker_url is None or not self._publish(job.id, options.plan.first_route):
            interactive.forget_message(self._db, job.id)  # the dispatcher publishes it
        return job

    def _publish(self, job_id: int, route: str | None) -> bool:
        """Publish, and return whether the broker took it. One that is down is not tried for a while: every caller would wait."""
        with self._publishing:
            if time.monotonic() < self._away_until:
                return False
            if self._publisher is None:
                self._publisher = Publisher(make_app(self._settings, "guardfleet-api"), self._settings)
            queue = self._publisher.queues.of_model(Lane.INTERACTIVE, route)
            try:
                self._publisher.publish(MODERATE, queue, [{"job": job_id, "shard": 0, "publish": 1}])
            except RetryableError:
                self._away_until = time.monotonic() + AWAY_S
                return False
        return True

    def _listen(self) -> None:
        while not self._stopped.is_set():
            try:
                for job_id in notify.done(self._db, pause_s=LISTEN_S):
                    if self._stopped.is_set():
                        return
                    if job_id is not None and job_id in self._waiting and self._loop is not None:
                        self._loop.call_soon_threadsafe(self._tell, job_id)
            except Exception as error:  # noqa: BLE001 - requests keep polling without it: this thread must not end
                if not isinstance(error, RetryableError):
                    get_logger().error("listening_failed", **told(error))
                self._stopped.wait(RECONNECT_S)

    def _tell(self, job_id: int) -> None:
        if job_id in self._waiting:
            self._waiting[job_id].set()
