"""The life of a shard, top to bottom: decode, claim, load, judge, finish, acknowledge.

At-least-once delivery, exactly-once effects: a message may come twice, the claim lets one worker in, the fence lets one commit.
Celery would acknowledge the message of a task that raised, and the failure would be lost, so each outcome is decided here.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from celery import Celery
from celery.exceptions import Reject
from structlog.contextvars import bound_contextvars

from guardfleet.broker.celery_app import MESSAGE_VERSION, MODERATE, is_newer
from guardfleet.domain.detection import route_to
from guardfleet.domain.ids import EVERY_TENANT
from guardfleet.domain.retry import backoff_s
from guardfleet.domain.verdict import GUARD
from guardfleet.errors import ConfigurationError, DrainingError, FatalError, GuardfleetError, RetryableError
from guardfleet.security.encryption import Keyring
from guardfleet.settings.tuning import Tuning
from guardfleet.store import installation
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, handoff
from guardfleet.store.shards import leases as shards
from guardfleet.store.shards.handoff import Provisional
from guardfleet.store.shards.leases import Claim, Limits, Waits
from guardfleet.telemetry import metrics, tracing
from guardfleet.telemetry.logs import get_logger, told
from worker.moderation.comparing import Witness, nobody
from worker.moderation.isolation import SUSPECT_CLAIMS, Isolation
from worker.moderation.judge import Judge
from worker.moderation.leases import LeaseKeeper
from worker.moderation.outcome import Loaded, next_route, stored_rows
from worker.moderation.seats import Seats
from worker.moderation.single_flight import Scope, SingleFlight
from worker.moderation.tally import Tally
from worker.moderation.turns import Turn

FINISH_TRIES = 6  # 8 to 16 s for the database to restart; then the shard is postponed, and judged again
ISOLATION_S = 1.0  # delay of a shard that cannot run here now, such as a second suspect
PAUSE_S = 5.0  # before a message goes back or a shard is due again because PostgreSQL is down
T = TypeVar("T")
UNSEATED = cast("Judge", None)  # the moderator of a process holds no judge, which would keep a model that was replaced in memory


def fatal(reason: str) -> None:
    """Raise FatalError: the `end` of a moderator that does not own its process."""
    raise FatalError(reason)


@dataclass(frozen=True)
class Moderator:
    """Moderates shards for one worker process. Called from all of its task threads."""

    db: Database
    keyring: Keyring
    seats: Seats
    leases: LeaseKeeper
    tuning: Tuning
    worker: str
    draining: threading.Event
    random: Callable[[], float]
    isolation: Isolation = field(default_factory=Isolation)
    duplicates: SingleFlight = field(default_factory=SingleFlight)
    end: Callable[[str], None] = fatal  # ends the process
    dying: threading.Event = field(default_factory=threading.Event)  # the engine is dead, and the process will end
    tally: Tally = field(default_factory=Tally)
    witness: Witness = nobody  # looks at each shard that was finished or passed on
    judge: Judge = UNSEATED  # of one shard, from its claim to its end

    def __call__(self, job: int, shard: int) -> None:
        """Moderate one shard. Returns when the message is to be acknowledged; raises Reject when it is to go back."""
        with self.isolation.enter() as wait_for_exclusive:
            if self.dying.is_set():  # a claim would count against a shard that never ran
                raise Reject("the engine died", requeue=True)
            with self.seats.take(job, shard) as judges:
                self._moderate(job, shard, judges, wait_for_exclusive)

    def _moderate(self, job: int, shard: int, judges: Sequence[Judge], wait_for_exclusive: Callable[[], bool]) -> None:
        """Have the first judge that the shard may have moderate it from its claim to its end."""
        started = time.perf_counter()
        for judge in judges:
            held = self._claim(job, shard, judge)
            if held is not None:
                replace(self, judge=judge).hold(held, started, wait_for_exclusive)
                return
        metrics.SHARDS.labels("skipped").inc()  # a duplicate message: the shard is held, settled, or was tried too often
        get_logger().debug("shard_skipped", job_number=job, shard=shard)

    def hold(self, held: Claim, started: float, wait_for_exclusive: Callable[[], bool]) -> None:
        """Moderate a shard that is claimed, with the judge that this was bound to."""
        metrics.CLAIMS.labels(held.lane.label).inc()
        with self.tally.in_work(held.n), self.leases.keep(held), self._named(held), self._traced(held):
            if held.claims < SUSPECT_CLAIMS or wait_for_exclusive():
                self._work(held, started)
            else:
                self._hand_back(lambda: shards.postpone(self.db, held, delay_s=ISOLATION_S))
                metrics.SHARDS.labels("postponed").inc()

    def _named(self, held: Claim) -> AbstractContextManager[object]:
        """Give every line that this thread logs the job's public id, the shard, the tenant, the worker and its model."""
        return bound_contextvars(
            job=held.label, shard=held.shard_no, tenant=held.tenant_id, worker=self.worker, model=self.judge.model.name
        )

    def _traced(self, held: Claim) -> AbstractContextManager[None]:
        about = {
            "messaging.operation.type": "process",
            "messaging.destination.name": held.lane.label,
            "messaging.batch.message_count": held.n,
            "guardfleet.shard": held.shard_no,
        }
        return tracing.span(f"process {held.lane.label}", about, kind="CONSUMER", jobs=[held.public_id])

    def _claim(self, job: int, shard: int, judge: Judge) -> Claim | None:
        limits = Limits(self.tuning.max_claims, self.tuning.max_failures)
        lease_s = self.tuning.lease_s
        waits_for = Waits(route_to(judge.model), takes_any=judge.detector == GUARD)
        try:
            return shards.claim(self.db, job, shard, worker=self.worker, lease_s=lease_s, limits=limits, by=waits_for)
        except RetryableError as error:
            self.draining.wait(PAUSE_S)
            raise Reject(str(error), requeue=True) from error
        except GuardfleetError as error:  # concerns this shard alone: it is published again once its message counts as lost
            get_logger().warning("shard_failed", job_number=job, shard=shard, reason=str(error))
            return None

    def _work(self, held: Claim, started: float) -> None:
        try:
            with self.tally.stage("loading"):
                texts, first = handoff.load(self.db, self.keyring, held)
            owner = EVERY_TENANT if self.judge.cache.across_tenants else held.tenant_id
            digests = [self.keyring.digest(owner, row.content) for row in texts]
            shard = Loaded(held, texts, digests, first)
            with self.duplicates.scope(held.job_id) as scope:
                said, heard = Turn(self.db, self.judge, shard, scope).take()
                if said.is_settled and (to := next_route(held.plan, said)) is None:
                    is_stored = self._finish(shard, said, started, scope.device_s)
                else:
                    is_stored = self._pass_on(held, said, scope, to if said.is_settled else None)
                if is_stored:
                    self.witness(self.judge, shard, heard, scope.device_s)
        except FatalError as error:
            # The process is ending, perhaps because of this shard: its claim counts, and it comes back when the lease is over.
            self.dying.set()  # before the task leaves the isolation, so that those that wait behind it claim nothing
            raise Reject("the engine died", requeue=True) from error
        except DrainingError as error:
            # Release first: a message redelivered under a live lease would be acknowledged as a duplicate.
            self._hand_back(lambda: shards.release(self.db, held))
            metrics.SHARDS.labels("released").inc()
            get_logger().info("shard_released")
            raise Reject("draining", requeue=True) from error
        except RetryableError as error:
            # PostgreSQL is down or its disk is full: not the shard's fault, however often it happens, so nothing is counted.
            self._hand_back(lambda: shards.postpone(self.db, held, delay_s=PAUSE_S))
            metrics.SHARDS.labels("postponed").inc()
            get_logger().warning("shard_postponed", reason=str(error))
        except ConfigurationError as error:
            self._cannot_open(held, str(error))
        except GuardfleetError as error:
            self._fail(held, str(error))
        except Exception as error:  # noqa: BLE001 - decided here: the row records it, the dispatcher tries again
            get_logger().warning("shard_raised", **told(error))
            self._fail(held, f"{type(error).__name__} in the worker")

    def _pass_on(self, held: Claim, said: Provisional, scope: Scope, to: str | None) -> bool:
        """Pass the shard on to who judges next, with what was said so far; return False if the claim was lost.

        `to`: their route, by default the second model's.
        """
        mine = self._patiently(lambda: handoff.pass_on(self.db, self.keyring, held, said, to=to, device_s=scope.device_s))
        if mine:
            metrics.SHARDS.labels("passed_on").inc()
        else:
            self.tally.fenced()
        get_logger().info("shard_passed_on" if mine else "shard_fenced")
        return mine

    def _finish(self, shard: Loaded, said: Provisional, started: float, device_s: float) -> bool:
        """Store all that was said; return False if the claim was lost."""
        held, model_id = shard.held, said.model_id if said.model_id is not None else self.judge.model_id
        rows, found = stored_rows(self.db, shard, said), handoff.detected_of(self.db, said)
        with self.tally.stage("writing"), tracing.span("settle", {"messaging.operation.type": "settle"}):
            written = self._patiently(
                lambda: completion.finish(
                    self.db, held, rows, model_id=model_id, escalation=said.escalation, device_s=device_s, detected=found
                )
            )
        seconds = time.perf_counter() - started
        if written is None:
            self.tally.fenced()
            get_logger().warning("shard_fenced", seconds=round(seconds, 3))
            return False
        escalated = said.escalation.escalated + sum(one.escalation.escalated for one in said.said)
        self.tally.add(shard.texts, written, seconds=seconds, escalated=escalated)
        self.tally.detected(found)
        get_logger().info("shard_finished", texts=len(rows), seconds=round(seconds, 3))
        return True

    def _patiently(self, write: Callable[[], T]) -> T:
        """Retry the write while the database restarts, since inference is expensive. Waiting renews no lease: the fence decides."""
        for attempt in range(1, FINISH_TRIES):
            try:
                return write()
            except RetryableError:
                self.draining.wait(backoff_s(attempt, base_s=0.5, cap_s=8.0, random=self.random))
        return write()

    def _cannot_open(self, held: Claim, reason: str) -> None:
        """Fail a shard that cannot be decrypted; if this process lacks the current secret key, postpone it and end the process."""
        try:
            installation.require_key(self.db, self.keyring)
        except ConfigurationError as wrong:
            self._hand_back(lambda: shards.postpone(self.db, held, delay_s=ISOLATION_S))
            self.end(str(wrong))
        except GuardfleetError:  # which of the two it is cannot be determined now
            self._hand_back(lambda: shards.postpone(self.db, held, delay_s=ISOLATION_S))
        else:
            self._fail(held, reason)

    def _fail(self, held: Claim, reason: str) -> None:
        delay_s = backoff_s(held.failures + 1, base_s=self.tuning.retry_base_s, cap_s=self.tuning.retry_cap_s, random=self.random)
        metrics.SHARDS.labels("failed").inc()
        get_logger().warning("shard_failed", failures=held.failures + 1, reason=reason)
        self._hand_back(lambda: shards.fail(self.db, held, error=reason, delay_s=delay_s))

    def _hand_back(self, write: Callable[[], bool]) -> None:
        """Hand the shard back; if PostgreSQL refuses, its lease runs out and the dispatcher rescues it."""
        try:
            write()
        except GuardfleetError as error:
            get_logger().warning("shard_failed", reason=str(error))


def register(app: Celery, moderate: Moderator) -> Callable[..., None]:
    """Bind the moderator to its task name; return the task."""

    @app.task(name=MODERATE)
    def task(**message: Any) -> None:
        if is_newer(message):
            # A worker of the newer version can read it. The pause keeps an older worker that is alone from spinning on it.
            get_logger().warning("shard_message_returned", version=message.get("v"))
            moderate.draining.wait(PAUSE_S)
            raise Reject("a newer message than this worker understands", requeue=True)
        if message.get("v") != MESSAGE_VERSION or not all(isinstance(message.get(key), int) for key in ("job", "shard")):
            # Send it to the dead-letter queue for inspection; the shard itself is a row and is published again.
            get_logger().error("shard_message_rejected", version=message.get("v"))
            raise Reject("not a message this worker understands", requeue=False)
        moderate(message["job"], message["shard"])

    run: Callable[..., None] = task
    return run
