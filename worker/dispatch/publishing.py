"""Messages: which to publish, and which the broker has lost. PostgreSQL is the truth: an emptied broker costs one window."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from guardfleet.broker.celery_app import DELIVER, MODERATE, Publisher
from guardfleet.settings.groups import WebhookSettings
from guardfleet.settings.tuning import Tuning
from guardfleet.store.events import deliveries
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import publishing
from guardfleet.store.shards.leases import Limits
from guardfleet.store.shards.publishing import Route, ShardRef
from guardfleet.telemetry import metrics, tracing
from guardfleet.telemetry.logs import get_logger
from worker.dispatch.bulkhead import Bulkhead

DELIVERY_WINDOW = 64
FAILING_AT_ONCE = 8  # deliveries under way to all failing receivers together: a quarter of what one process sends at once


@dataclass
class MessagePublisher:
    """Publishes for one dispatcher. A failure on one route or row does not stop the others."""

    db: Database
    publisher: Publisher
    webhooks: WebhookSettings
    tuning: Tuning
    bulkhead: Bulkhead
    clock: Callable[[], float]
    _short_since: dict[str, float] = field(default_factory=dict, init=False)  # by queue

    def publish_shards(self) -> int:
        """Fill the window of each queue; return the most messages published to one."""
        out = publishing.windows(self.db)
        return max(self.bulkhead.each("publish_shards", list(out), lambda route: self._publish_route(route, out[route])), default=0)

    def publish_deliveries(self) -> None:
        """Publish webhooks that are due."""
        ids = deliveries.due(
            self.db,
            limit=DELIVERY_WINDOW,
            again_after_s=self.tuning.redelivery_s(self.webhooks.timeout_s),
            at_once=self.tuning.webhook_at_once,
            failing=FAILING_AT_ONCE,
            skip=self._aside("mark_deliveries"),
        )
        if ids:
            published = self.publisher.publish(DELIVER, self.publisher.queues.webhooks, [{"delivery": i} for i in ids])
            self.bulkhead.sweep("mark_deliveries", ids[:published], lambda told: deliveries.mark_published(self.db, told))

    def _publish_route(self, route: Route, out: int) -> int:
        queue = self.publisher.queues.of_model(route.lane, route.model)
        if self._is_short(queue, out):
            out -= self._forget_lost(route, queue)
        limits = Limits(self.tuning.max_claims, self.tuning.max_failures)
        room = max(0, self.tuning.prefetch_window - out)
        ready = publishing.due(self.db, route, limit=room, limits=limits, skip=self._aside("mark_shards"))
        if not ready:
            return 0
        messages = [{"job": ref.job_id, "shard": ref.shard_no, "publish": ref.publish_no} for ref in ready]
        about = {
            "messaging.operation.type": "send",
            "messaging.destination.name": queue,
            "messaging.batch.message_count": len(messages),
        }
        with tracing.span(f"send {queue}", about, kind="PRODUCER", jobs=self._jobs(ready)):
            published = self.publisher.publish(MODERATE, queue, messages)
        refs = {(ref.job_id, ref.shard_no): ref for ref in ready[:published]}
        self.bulkhead.sweep("mark_shards", list(refs), lambda keys: publishing.mark_published(self.db, [refs[key] for key in keys]))
        metrics.PUBLISHED.labels(route.lane.label, "rung").inc(published)
        get_logger().debug("shards_published", queue=queue, n=published)
        return published

    def _jobs(self, refs: Sequence[ShardRef]) -> list[uuid.UUID]:
        return [*views.public_ids(self.db, {ref.job_id for ref in refs}).values()] if tracing.is_on() else []

    def _forget_lost(self, route: Route, queue: str) -> int:
        age_s = self.tuning.republish_s
        keys = publishing.lost(self.db, route, older_than_s=age_s, skip=self._aside("forget_lost"))
        lost = sum(self.bulkhead.sweep("forget_lost", keys, lambda some: publishing.forget_lost(self.db, some, older_than_s=age_s)))
        if lost:
            metrics.PUBLISHED.labels(route.lane.label, "lost").inc(lost)
            get_logger().warning("messages_lost", queue=queue, n=lost)
        return lost

    def _is_short(self, queue: str, out: int) -> bool:
        """Return whether the broker has had fewer messages than were published for so long that it must have lost some.

        A worker that has taken a message but not yet claimed its shard makes the queue short for a moment, and the queue may be
        long: a moment must not cause all of it to be published again.
        """
        if not out or self.publisher.depth(queue) >= out:
            self._short_since.pop(queue, None)
            return False
        if self.clock() - self._short_since.setdefault(queue, self.clock()) < self.tuning.republish_s:
            return False
        del self._short_since[queue]
        return True

    def _aside(self, step: str) -> Sequence[Any]:
        return self.bulkhead.aside(step)
