"""What a dispatcher repairs and cleans up, step by step: an error of one job, shard or event stops only that one.

A step finds its units, except those that are set aside, and handles all of them in one statement; if PostgreSQL refuses it, the
step handles each alone (`Bulkhead.sweep`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from guardfleet.domain import ids
from guardfleet.domain.lanes import Queues
from guardfleet.jobs import diagnosis
from guardfleet.security.encryption import Keyring
from guardfleet.settings.groups import RetentionSettings
from guardfleet.settings.tuning import Tuning
from guardfleet.store import audit, files, idempotency, sessions
from guardfleet.store.events import deliveries
from guardfleet.store.jobs import control, intake_recovery, retention, views
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import health, leases, publishing
from guardfleet.store.shards.leases import Limits, ShardKey
from guardfleet.store.shards.publishing import Route
from guardfleet.telemetry import metrics, tracing
from guardfleet.telemetry.logs import get_logger
from worker.dispatch.bulkhead import Bulkhead
from worker.dispatch.poison import give_up

HOUSEKEEPING_S = 5.0  # between purges and backlog counts
EXPIRY_S = 600.0  # between checks for days that are over
CLEAR_S = 60.0  # between checks for expired files and for old remembered requests
REMEMBERED_S = 2 * 86_400.0  # twice as long as a repeated request is recognised
MOST_RELAYS = 20  # relays in a row: the rest waits for the next tick
MOST_AUDITS = 20  # pieces of the audit trail in a row: the rest waits for the next time


@dataclass(frozen=True)
class Step:
    """Something that runs every `every_s` seconds."""

    name: str
    every_s: float
    run: Callable[[], object]


@dataclass
class Mender:
    """The repair steps of one dispatcher."""

    db: Database
    keyring: Keyring
    namespace: str
    retention: RetentionSettings
    tuning: Tuning
    bulkhead: Bulkhead
    _stalled: frozenset[Route] = field(default=frozenset(), init=False)

    @property
    def limits(self) -> Limits:
        """How often a shard may be tried."""
        return Limits(self.tuning.max_claims, self.tuning.max_failures)

    def steps(self) -> list[Step]:
        """Return all steps in order."""
        tick_s = self.tuning.tick_s
        return [
            Step("rescue", tick_s, self.rescue),
            Step("give_up", tick_s, self.give_up),
            Step("relay", tick_s, self.relay),
            Step("expire_jobs", tick_s, self.expire_jobs),
            Step("settle_cancelled", tick_s, self.settle_cancelled),
            Step("name_stalls", HOUSEKEEPING_S, self.name_stalls),
            Step("abandon_idle", HOUSEKEEPING_S, self.abandon_idle),
            Step("purge", HOUSEKEEPING_S, self.purge),
            Step("expire_files", CLEAR_S, self.expire_files),
            Step("forget_requests", CLEAR_S, self.forget_requests),
            Step("expire_sessions", CLEAR_S, self.expire_sessions),
            Step("expire_days", EXPIRY_S, self.expire_days),
            Step("expire_audit", EXPIRY_S, self.expire_audit),
        ]

    def rescue(self) -> None:
        """Take shards back from workers that have died."""
        overdue = leases.overdue(self.db, skip=self._aside("rescue"))
        for rescued in self.bulkhead.sweep("rescue", overdue, lambda keys: leases.rescue(self.db, keys)):
            names = views.labels(self.db, [job for job, _ in rescued])
            for job, shard in rescued:
                get_logger().warning("shard_rescued", job=names.get(job), shard=shard)
            metrics.RESCUED.inc(len(rescued))

    def give_up(self) -> None:
        """Bisect or settle shards that were tried too often."""

        def one(key: ShardKey) -> None:
            give_up(self.db, self.keyring, key, self.limits, lease_s=self.tuning.lease_s)

        self.bulkhead.each("give_up", publishing.exhausted(self.db, self.limits, skip=self._aside("give_up")), one)

    def relay(self) -> None:
        """Turn outbox events into deliveries."""
        for _ in range(MOST_RELAYS):
            events = deliveries.events(self.db, skip=self._aside("relay"))
            if not events:
                break
            if tracing.is_on():
                self._trace_ends(events)
            self.bulkhead.sweep("relay", events, lambda ids: deliveries.relay(self.db, ids))

    def _trace_ends(self, events: Sequence[int]) -> None:
        """Write the root spans of the jobs that these events end."""
        for end in deliveries.ends(self.db, events):
            job = ids.JOB.of(end.public_id)
            about = {"guardfleet.job": job, "guardfleet.texts": end.total, "guardfleet.state": end.state.label}
            tracing.job(end.public_id, end.created_at, end.ended_at, about)

    def expire_jobs(self) -> None:
        """End jobs whose completion window is over."""

        def one(job: int) -> None:
            control.expire(self.db, job)
            get_logger().info("job_expired", job=views.labels(self.db, [job]).get(job))

        self.bulkhead.each("expire_jobs", control.overdue(self.db, skip=self._aside("expire_jobs")), one)

    def settle_cancelled(self) -> None:
        """End cancelling jobs that nobody works on any more."""
        jobs = control.cancelling(self.db, skip=self._aside("settle_cancelled"))
        self.bulkhead.sweep("settle_cancelled", jobs, lambda ids: control.settle_cancelled(self.db, ids))

    def name_stalls(self) -> None:
        """Log once that a queue has stalled, and once that it moves again."""
        found = {stall.route: stall for stall in health.stalls(self.db, after_s=self.tuning.stall_s)}
        for route in found.keys() - self._stalled:
            get_logger().warning("queue_stalled", reason=diagnosis.in_words(found[route], self.namespace))
        for route in self._stalled - found.keys():
            queue = Queues.of(self.namespace).of_model(route.lane, route.model)
            get_logger().info("queue_moves", queue=queue)
        self._stalled = frozenset(found)
        metrics.STALLED.set(len(found))

    def abandon_idle(self) -> None:
        """Abandon jobs whose intake nobody has resumed."""
        tokens = intake_recovery.idle(self.db, idle_s=self.tuning.intake_idle_s)

        def one(job: int) -> None:
            intake_recovery.abandon(self.db, job, token=tokens[job])
            get_logger().warning("job_abandoned", job=views.labels(self.db, [job]).get(job))

        self.bulkhead.each("abandon_idle", list(tokens), one)

    def purge(self) -> None:
        """Delete texts whose retention is over."""
        hours = self.retention.text_hours
        jobs = retention.purgeable(self.db, older_than_hours=hours, skip=self._aside("purge"))
        purged = sum(self.bulkhead.sweep("purge", jobs, lambda ids: retention.purge(self.db, ids)))
        if purged:
            get_logger().info("jobs_purged", n=purged)

    def expire_files(self) -> None:
        """Destroy the keys of expired uploaded files; an API process removes their contents."""
        overdue = files.overdue(self.db, skip=self._aside("expire_files"))
        self.bulkhead.sweep("expire_files", overdue, lambda some: files.expire(self.db, some))

    def forget_requests(self) -> None:
        """Forget requests that are too old to be repeated."""
        idempotency.forget_old(self.db, older_than_s=REMEMBERED_S)

    def expire_sessions(self) -> None:
        """Delete sessions of the console that are over."""
        sessions.expire(self.db)

    def expire_days(self) -> None:
        """Drop the partitions of days whose retention is over."""

        def one(day: retention.Day) -> None:
            if retention.expire(self.db, *day):
                get_logger().info("day_expired", partition=f"{day[0]} {day[1].isoformat()}")

        self.bulkhead.each("expire_days", retention.over(self.db, verdict_days=self.retention.verdict_days), one)

    def expire_audit(self) -> None:
        """Delete rows of the audit trail whose retention is over."""
        for _ in range(MOST_AUDITS):
            if audit.expire(self.db, older_than_days=self.retention.audit_days) < audit.PIECE:
                break

    def _aside(self, step: str) -> Sequence[Any]:
        return self.bulkhead.aside(step)
