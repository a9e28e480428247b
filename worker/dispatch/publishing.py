"""Doorbells: which the broker is told of, and which it has lost. Postgres is the truth: an emptied broker costs one window."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from guardfleet.broker.celery_app import DELIVER, MODERATE, Publisher
from guardfleet.settings import Settings
from guardfleet.store.database import Database
from guardfleet.store.events import deliveries
from guardfleet.store.shards import publishing
from guardfleet.store.shards.leases import Limits
from guardfleet.store.shards.publishing import Route
from guardfleet.telemetry import metrics
from guardfleet.telemetry.logs import get_logger
from worker.dispatch.bulkhead import Isolation

DELIVERY_WINDOW = 64
FAILING_AT_ONCE = 8  # deliveries under way to receivers that fail, all together: a quarter of what one process sends at once


@dataclass
class Ringer:
    """Rings for one dispatcher. Each route on its own, and what a row refuses costs that row."""

    db: Database
    publisher: Publisher
    settings: Settings
    isolation: Isolation
    clock: Callable[[], float]
    _short_since: dict[str, float] = field(default_factory=dict, init=False)  # by queue

    def ring_shards(self) -> int:
        """Fill the window of each queue; returns the most that were rung for in one."""
        out = publishing.windows(self.db)
        return max(self.isolation.each("ring_shards", list(out), lambda route: self._ring_route(route, out[route])), default=0)

    def ring_deliveries(self) -> None:
        """Ring for webhooks that are due."""
        ids = deliveries.due(
            self.db,
            limit=DELIVERY_WINDOW,
            again_after_s=self.settings.webhook_again_s,
            at_once=self.settings.webhook_at_once,
            failing=FAILING_AT_ONCE,
            skip=self._aside("mark_deliveries"),
        )
        if ids:
            rung = self.publisher.ring(DELIVER, self.publisher.queues.webhooks, [{"delivery": i} for i in ids])
            self.isolation.sweep("mark_deliveries", ids[:rung], lambda told: deliveries.mark_rung(self.db, told))

    def _ring_route(self, route: Route, out: int) -> int:
        queue = self.publisher.queues.of_model(route.lane, route.model)
        if self._is_short(queue, out):
            out -= self._forget_lost(route, queue)
        limits = Limits(self.settings.max_claims, self.settings.max_failures)
        room = max(0, self.settings.prefetch_window - out)
        ready = publishing.due(self.db, route, limit=room, limits=limits, skip=self._aside("mark_shards"))
        if not ready:
            return 0
        messages = [{"job": bell.job_id, "shard": bell.shard_no, "publish": bell.publish_no} for bell in ready]
        rung = self.publisher.ring(MODERATE, queue, messages)
        bells = {(bell.job_id, bell.shard_no): bell for bell in ready[:rung]}
        self.isolation.sweep("mark_shards", list(bells), lambda keys: publishing.mark_rung(self.db, [bells[key] for key in keys]))
        metrics.DOORBELLS.labels(route.lane.label, "rung").inc(rung)
        get_logger().debug("doorbells_rung", queue=queue, n=rung)
        return rung

    def _forget_lost(self, route: Route, queue: str) -> int:
        age_s = self.settings.republish_s
        keys = publishing.lost(self.db, route, older_than_s=age_s, skip=self._aside("forget_lost"))
        lost = sum(
            self.isolation.sweep("forget_lost", keys, lambda some: publishing.forget_lost(self.db, some, older_than_s=age_s))
        )
        if lost:
            metrics.DOORBELLS.labels(route.lane.label, "lost").inc(lost)
            get_logger().warning("doorbells_lost", queue=queue, n=lost)
        return lost

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

    def _aside(self, step: str) -> Sequence[Any]:
        return self.isolation.aside(step)
