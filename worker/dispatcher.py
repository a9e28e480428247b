"""The dispatcher: rings for what is ready, and repairs what was lost. One leads, any number stand by; all it does is idempotent.

Each tick in order: leases that ran out, shards tried too often, events to relay, deliveries to ring, cancelled jobs to close; then
doorbells the broker lost and doorbells to ring. Now and then queues that stand still, intakes nobody goes on with, texts to purge,
days to drop. Postgres is the truth: an emptied broker costs one window.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from guardfleet import standstill
from guardfleet.broker import DELIVER, MODERATE, Publisher
from guardfleet.errors import RetryableError
from guardfleet.queues import LANE_NAMES
from guardfleet.sealing import Keyring
from guardfleet.settings import Settings
from guardfleet.store import cut_off, deliveries, doorbells, retention, shards, stalls, steering
from guardfleet.store.database import Database
from guardfleet.store.doorbells import Route
from guardfleet.store.leader import Leadership, campaign
from guardfleet.store.shards import Limits
from guardfleet.telemetry import metrics
from guardfleet.telemetry.logs import get_logger
from worker.giving_up import give_up

HOUSEKEEPING_S = 5.0  # between purges and backlog counts
EXPIRY_S = 600.0  # between looks for days that are over
DELIVERY_WINDOW = 64
FAILING_AT_ONCE = 8  # deliveries under way to receivers that fail, all together: a quarter of what one process sends at once
REFILLS = 5  # looks in the time of one, while there is work
AWAY_PAUSE_S = 1.0  # while PostgreSQL or the broker does not answer


@dataclass
class Dispatcher:
    """Runs in one thread until `stop()`; `last_tick` is for the liveness probe."""

    db: Database
    publisher: Publisher
    keyring: Keyring
    settings: Settings
    clock: Callable[[], float] = time.monotonic
    last_tick: float = field(default=0.0, init=False)
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)
    _mended: float = field(default=float("-inf"), init=False)
    _housekept: float = field(default=float("-inf"), init=False)
    _expired: float = field(default=float("-inf"), init=False)
    _short_since: dict[str, float] = field(default_factory=dict, init=False)  # by queue
    _stalled: frozenset[Route] = field(default=frozenset(), init=False)

    @property
    def _limits(self) -> Limits:
        return Limits(self.settings.max_claims, self.settings.max_failures)

    def run(self) -> None:
        """Lead, or stand by, until stopped. An outage of PostgreSQL or the broker is waited out."""
        self.last_tick = self.clock()
        while not self._stopped.is_set():
            try:
                with campaign(self.db) as leadership:
                    self._serve(leadership)
            except RetryableError as error:
                self._pause(str(error))
        metrics.LEADING.set(0)

    def stop(self) -> None:
        """End `run()` after the tick it is in; safe to call twice, and from a signal handler."""
        self._stopped.set()

    def _serve(self, leadership: Leadership) -> None:
        was_leading: bool | None = None
        while not self._stopped.is_set():
            leading = leadership.try_lead()
            if leading is not was_leading:
                get_logger().info("dispatcher_leading" if leading else "dispatcher_standing_by")
                metrics.LEADING.set(int(leading))
                was_leading = leading
            pause_s = self.tick() if leading else self.settings.tick_s
            self.last_tick = self.clock()
            self._stopped.wait(pause_s)

    def tick(self) -> float:
        """Do everything that is due once; returns how long there will be nothing to do, s. Raises RetryableError.

        While work goes on, a window is refilled before it can be empty and not after each shard: looking costs as much as a shard.
        In between nothing else is looked at: on a machine that also judges, each look is time that the model does not have.
        """
        if self.clock() - self._mended >= self.settings.tick_s:
            self._mend()
            self._mended = self.clock()
        rung = max((self._ring_route(route, out) for route, out in doorbells.windows(self.db).items()), default=0)
        if rung > self.settings.prefetch_window // 2:
            return 0.0
        return self.settings.tick_s / REFILLS if rung else self.settings.tick_s

    def _mend(self) -> None:
        self._rescue()
        give_up(self.db, self.keyring, self._limits, lease_s=self.settings.lease_s)
        while deliveries.relay(self.db):
            pass
        self._ring_deliveries()
        for job in steering.expire(self.db):
            get_logger().info("job_expired", job=job)
        steering.settle_cancelled(self.db)
        self._keep_house()

    def _rescue(self) -> None:
        rescued = shards.rescue(self.db)
        for job, shard in rescued:
            get_logger().warning("shard_rescued", job=job, shard=shard)
        metrics.RESCUED.inc(len(rescued))

    def _ring_route(self, route: Route, out: int) -> int:
        queue, lane = self.publisher.queues.of_model(route.lane, route.model), LANE_NAMES[route.lane]
        if self._is_short(queue, out):
            lost = doorbells.forget_lost(self.db, route, older_than_s=self.settings.republish_s)
            if lost:
                metrics.DOORBELLS.labels(lane, "lost").inc(lost)
                get_logger().warning("doorbells_lost", queue=queue, n=lost)
                out -= lost
        ready = doorbells.due(self.db, route, limit=max(0, self.settings.prefetch_window - out), limits=self._limits)
        if not ready:
            return 0
        messages = [{"job": bell.job_id, "shard": bell.shard_no, "publish": bell.publish_no} for bell in ready]
        rung = self.publisher.ring(MODERATE, queue, messages)
        doorbells.mark_rung(self.db, ready[:rung])
        metrics.DOORBELLS.labels(lane, "rung").inc(rung)
        get_logger().debug("doorbells_rung", queue=queue, n=rung)
        return rung

    def _is_short(self, queue: str, out: int) -> bool:
        """Whether the broker has had fewer messages than there are doorbells for so long that it must have lost some.

        A worker that has just taken one and not claimed it yet makes the queue short for a moment, and a queue may be long: a
        moment must not have all of it rung again.
        """
        if not out or self.publisher.depth(queue) >= out:
            self._short_since.pop(queue, None)
            return False
        if self.clock() - self._short_since.setdefault(queue, self.clock()) < self.settings.republish_s:
            return False
        del self._short_since[queue]
        return True

    def _ring_deliveries(self) -> None:
        ids = deliveries.due(
            self.db,
            limit=DELIVERY_WINDOW,
            again_after_s=self.settings.webhook_again_s,
            at_once=self.settings.webhook_at_once,
            failing=FAILING_AT_ONCE,
        )
        if ids:
            rung = self.publisher.ring(DELIVER, self.publisher.queues.webhooks, [{"delivery": i} for i in ids])
            deliveries.mark_rung(self.db, ids[:rung])

    def _keep_house(self) -> None:
        if self.clock() - self._housekept < HOUSEKEEPING_S:
            return
        self._housekept = self.clock()
        backlog = doorbells.backlog(self.db)
        for lane, name in enumerate(LANE_NAMES):
            metrics.BACKLOG.labels(name).set(backlog.get(lane, 0))
        self._name_stalls()
        for job in cut_off.abandon_idle(self.db, idle_s=self.settings.intake_idle_s):
            get_logger().warning("job_abandoned", job=job)
        purged = retention.purge(self.db, older_than_hours=self.settings.purge_hours)
        if purged:
            get_logger().info("jobs_purged", n=purged)
        if self.clock() - self._expired >= EXPIRY_S:
            self._expired = self.clock()
            for dropped in retention.expire(self.db, verdict_days=self.settings.verdict_days):
                get_logger().info("day_expired", partition=dropped)

    def _name_stalls(self) -> None:
        """Say once of a queue that it stands still, and that it moves again."""
        found = {stall.route: stall for stall in stalls.stalls(self.db, after_s=self.settings.stall_s)}
        for route in found.keys() - self._stalled:
            get_logger().warning("queue_stalled", reason=standstill.in_words(found[route], self.settings.namespace))
        for route in self._stalled - found.keys():
            get_logger().info("queue_moves", queue=self.publisher.queues.of_model(route.lane, route.model))
        self._stalled = frozenset(found)
        metrics.STALLED.set(len(found))

    def _pause(self, reason: str) -> None:
        get_logger().warning("dispatcher_paused", reason=reason)
        metrics.LEADING.set(0)
        self.last_tick = self.clock()
        self._stopped.wait(AWAY_PAUSE_S)
