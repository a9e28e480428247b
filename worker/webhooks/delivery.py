"""One webhook delivery: claim -> compose and sign -> send -> settle or defer. Sent outside any transaction; at least once.

A crash between sending and recording repeats the send with the same event id, which the documentation tells receivers to expect.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpcore2
from celery import Celery
from celery.exceptions import Reject

import guardfleet
from guardfleet.broker.celery_app import DELIVER, MESSAGE_VERSION, is_newer
from guardfleet.domain import events, ids
from guardfleet.domain.retry import retry_after_s, webhook_delay_s
from guardfleet.errors import GuardfleetError, RejectedError, RetryableError
from guardfleet.security.encryption import Keyring
from guardfleet.security.signing import sign
from guardfleet.settings.groups import WebhookSettings
from guardfleet.settings.tuning import Tuning
from guardfleet.store import installation
from guardfleet.store.events import deliveries
from guardfleet.store.events.deliveries import DueDelivery, Outcome
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from guardfleet.telemetry import metrics, tracing
from guardfleet.telemetry.logs import get_logger, told
from guardfleet.verdicts import cursors
from guardfleet.verdicts.page import Cursor
from worker.webhooks.egress import CheckedBackend

GONE = 410
ANSWER_BYTES = 1024  # nobody needs more of a receiver's answer, and a flood must not fill memory
LEASE_MARGIN_S = 30.0
PAUSE_S = 5.0
RUN_S = 2.0  # how long a sender continues with one receiver
SENDERS = 32  # deliveries at once in one process: they spend nearly all of their time waiting
LONGEST_RETRY_S = 86_400.0
END = (1 << 31) - 1  # after every text


@dataclass(frozen=True)
class Deliverer:
    """Delivers for one worker process."""

    db: Database
    keyring: Keyring
    webhooks: WebhookSettings
    tuning: Tuning
    pool: httpcore2.ConnectionPool
    now: Callable[[], float]
    random: Callable[[], float]
    pause: Callable[[float], object]

    def __call__(self, delivery_id: int) -> None:
        """Make one attempt, and continue with deliveries for the same receiver while it accepts them, for up to RUN_S.

        Returns to have the message acknowledged; raises Reject to return it to the broker.
        """
        ends = time.monotonic() + RUN_S
        lease_s = self.webhooks.timeout_s + LEASE_MARGIN_S
        again_after_s = self.tuning.redelivery_s(self.webhooks.timeout_s)
        at_once = self.tuning.webhook_at_once
        try:
            due = deliveries.claim(self.db, delivery_id, lease_s=lease_s)
            if due is None:
                get_logger().debug("delivery_skipped", delivery=delivery_id)
            while due is not None:
                if due.is_paced:
                    self.pause(deliveries.pace(self.db, due.endpoint_id))
                if not self._record(due, self._attempt(due)) or time.monotonic() >= ends:
                    break
                due = deliveries.claim_next(self.db, due.endpoint_id, lease_s=lease_s, again_after_s=again_after_s, at_once=at_once)
        except RetryableError as error:
            self.pause(PAUSE_S)
            raise Reject(str(error), requeue=True) from error
        except GuardfleetError as error:  # concerns one row, whose lease runs out: then it is published again
            metrics.DELIVERIES.labels("refused").inc()
            get_logger().warning("delivery_failed", delivery=delivery_id, **told(error))

    def _attempt(self, due: DueDelivery) -> Outcome:
        """Compose, sign and send. An event that cannot be composed or signed is a failed attempt, and costs no other delivery."""
        try:
            body = self._compose(due)
            headers = self._signed(due, body)
        except RetryableError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, it is deferred, and exhausted in the end
            installation.require_key(self.db, self.keyring)  # raises if only this process cannot decrypt the secret
            get_logger().error("delivery_raised", delivery=due.id, **told(error))
            return Outcome(None, 0, f"the event could not be composed or signed: {type(error).__name__}")
        return self._send(due, headers, body)

    def _compose(self, due: DueDelivery) -> bytes:
        data = (self._about(due.job_id) if due.job_id else {"id": events.TEST_BATCH}) | (due.subject or {})
        if "ord" in data:  # where the event's verdicts begin
            data["after"] = cursors.pack(Cursor(data.pop("ord") - 1, END), job_id=due.job_id, key=self.keyring.cursor_keys[0])
        return events.body(due.event_id, due.kind, due.occurred_at, data)

    def _about(self, job_id: int) -> dict[str, Any]:
        job = views.get_by_id(self.db, job_id)
        return events.about_batch(
            job.public_id,
            status=job.state.label,
            request_counts=job.request_counts,
            severities=job.severities,
            model=job.model,
            is_demo=job.is_demo,
            metadata=job.metadata if job.webhook_metadata is None else job.webhook_metadata,
        )

    def _signed(self, due: DueDelivery, body: bytes) -> dict[str, str]:
        secrets = [self.keyring.decrypt_secret(sealed) for sealed in (due.secret, due.old_secret) if sealed]
        return {
            "content-type": "application/json",
            "user-agent": f"guardfleet/{guardfleet.__version__}",
            **sign(secrets, event_id=due.event_id, timestamp_s=int(self.now()), body=body),
        }

    def _send(self, due: DueDelivery, headers: dict[str, str], body: bytes) -> Outcome:
        with tracing.span(
            "POST", {"http.request.method": "POST", "guardfleet.event": due.kind}, kind="CLIENT", of=due.job_public_id
        ):
            return self._exchange(due, headers, body)

    def _exchange(self, due: DueDelivery, headers: dict[str, str], body: bytes) -> Outcome:
        started = time.perf_counter()
        status, wrong, retry_after_s = None, None, None
        limit_s = self.webhooks.timeout_s
        timeouts = {"connect": min(5.0, limit_s), "read": limit_s, "write": limit_s, "pool": limit_s}
        try:
            with self.pool.stream(
                "POST", due.url, headers=list(headers.items()), content=body, extensions={"timeout": timeouts}
            ) as response:
                status = response.status
                retry_after_s = _retry_after_s(response, self.now())
                _read_some(response, deadline=started + limit_s)
        except RejectedError as error:
            wrong = str(error)
        except (
            httpcore2.NetworkError,
            httpcore2.TimeoutException,
            httpcore2.ProtocolError,
            httpcore2.UnsupportedProtocol,
            OSError,
        ) as error:
            wrong = type(error).__name__
        return Outcome(status, round(1000 * (time.perf_counter() - started)), wrong, retry_after_s)

    def _record(self, due: DueDelivery, outcome: Outcome) -> bool:
        """Record the outcome of the attempt; return whether it was delivered."""
        job = ids.JOB.of(due.job_public_id) if due.job_public_id else None
        log = get_logger().bind(
            job=job,
            event_id=due.event_id,
            kind=due.kind,
            delivery=due.id,
            attempt=due.attempts,
            status=outcome.status,
            latency_ms=outcome.latency_ms,
        )
        if outcome.status is not None and 200 <= outcome.status < 300:  # noqa: PLR2004 - HTTP success
            deliveries.settle(self.db, due, outcome, delivered=True)
            metrics.DELIVERIES.labels("delivered").inc()
            metrics.DELIVERED_AFTER.observe(max(0.0, self.now() - due.occurred_at.timestamp()))
            log.info("delivery_made")
            return True
        delay_s = webhook_delay_s(due.attempts, schedule=self.webhooks.schedule_s, random=self.random)
        is_test = events.is_test(due.subject)
        if outcome.status == GONE or is_test or delay_s is None:
            delay_s = None
            deliveries.settle(self.db, due, outcome, delivered=False)
            metrics.DELIVERIES.labels("exhausted").inc()
        else:
            delay_s = max(delay_s, outcome.retry_after_s or 0.0)
            deliveries.defer(self.db, due, outcome, delay_s=delay_s)
            metrics.DELIVERIES.labels("deferred").inc()
        log.warning("delivery_failed", reason=outcome.error, retry_in_s=delay_s)
        if outcome.status == GONE:
            self._disable(due, "the receiver answered 410 Gone", failing_for_s=0.0)
        else:
            days = self.tuning.webhook_disable_days
            self._disable(due, f"every delivery failed for {days:g} days", failing_for_s=days * 86_400)
        return False

    def _disable(self, due: DueDelivery, reason: str, *, failing_for_s: float) -> None:
        if deliveries.disable(self.db, due, reason, failing_for_s=failing_for_s):
            get_logger().warning("endpoint_disabled", delivery=due.id, reason=reason)


def make_pool(webhooks: WebhookSettings) -> httpcore2.ConnectionPool:
    """Make the pool of connections to receivers: checked addresses, no proxies, no redirects, no keep-alive."""
    return httpcore2.ConnectionPool(
        network_backend=CheckedBackend(webhooks.allow_networks, limit_s=webhooks.timeout_s),
        max_connections=SENDERS,
        max_keepalive_connections=0,
    )


def _retry_after_s(response: httpcore2.Response, now: float) -> float | None:
    """Return the seconds that the receiver asks to wait, a day at most; None if it asks for nothing."""
    value = next((value for name, value in response.headers if name.lower() == b"retry-after"), b"").decode("latin-1").strip()
    wanted = retry_after_s(value, now=now)
    return None if wanted is None else min(wanted, LONGEST_RETRY_S)


def _read_some(response: httpcore2.Response, *, deadline: float) -> None:
    """Read a little of the answer, so that a well-behaved receiver sees it read; stop if it is too long or too slow."""
    n = 0
    for chunk in response.iter_stream():
        n += len(chunk)
        if n > ANSWER_BYTES or time.perf_counter() > deadline:
            return


def register(app: Celery, deliver: Deliverer) -> None:
    """Bind the deliverer to its task name."""

    @app.task(name=DELIVER)
    def task(**message: Any) -> None:
        if is_newer(message):
            get_logger().warning("delivery_message_returned", version=message.get("v"))
            deliver.pause(PAUSE_S)
            raise Reject("a newer message than this worker understands", requeue=True)
        if message.get("v") != MESSAGE_VERSION or not isinstance(message.get("delivery"), int):
            get_logger().error("delivery_message_rejected", version=message.get("v"))
            raise Reject("not a message this worker understands", requeue=False)
        deliver(message["delivery"])
