"""Consumes the interactive queues beside Celery's pool, so that slow bulk shards cannot occupy every slot.

Celery has one pool for all queues of a worker. Here one thread owns the connection, takes messages, acknowledges and returns them;
a few others run the same task that Celery would. As in Celery, the task decides about a message: it returns and the message is
acknowledged, or it raises Reject.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from celery import Celery
from celery.exceptions import Reject
from kombu import Connection, Consumer, Message

from guardfleet.broker.celery_app import connected
from guardfleet.telemetry.logs import get_logger
from worker.process.queues import turn
from worker.process.watchdog import CONNECTS_IN_S

SLOTS = 2
POLL_S = 0.05  # between checks for finished slots while any is taken
IDLE_S = 0.5  # between checks for a drain while none is
RECONNECT_S = 1.0
HEARTBEAT_S = 10.0  # between checks of the connection's heartbeat, which is due every 30 s


class Express:
    """Consumes `queues` with its own slots until `draining` is set. `run`: the task, called with a message's fields."""

    def __init__(self, app: Celery, queues: Sequence[str], run: Callable[..., None], draining: threading.Event) -> None:
        self._app, self._queues, self._run, self._draining = app, queues, run, draining
        self._pool = ThreadPoolExecutor(SLOTS, thread_name_prefix="express")
        self._running: dict[Future[None], Message] = {}
        self._thread = threading.Thread(target=self._live, name="express", daemon=True)
        self._turned_at: float | None = None
        self._failing_since: float | None = time.monotonic()  # until it has taken messages, or waited for them, once
        self._has_said = False

    def consume(self, queues: Sequence[str]) -> None:
        """Consume these queues from now on, in place of any others; the application knows them."""
        self._queues = queues

    def start(self) -> None:
        """Start consuming; the broker may be down."""
        self._thread.start()

    def stop(self, *, timeout_s: float) -> None:
        """Wait for the running tasks; call it once draining is set."""
        self._thread.join(timeout_s)
        self._pool.shutdown(wait=False)

    def stuck_s(self) -> float:
        """Return the seconds since its loop last turned; 0 while it is connecting."""
        at = self._turned_at
        return 0.0 if at is None else time.monotonic() - at

    def away(self) -> str | None:
        """Return that it has no connection to the broker, or None."""
        since = self._failing_since
        is_away = since is not None and time.monotonic() - since > CONNECTS_IN_S
        return "the broker does not answer, or refuses" if is_away else None

    def _live(self) -> None:
        while not self._draining.is_set():
            try:
                with connected(self._app, max_retries=1) as connection:
                    self._serve(connection)
            except Exception as error:  # noqa: BLE001 - whatever it is, this thread must not end: nothing else here consumes these queues
                if not self._has_said:  # `outage_began` says the rest
                    self._has_said = True
                    get_logger().warning("express_reconnecting", reason=type(error).__name__)
                self._failing_since = self._failing_since or time.monotonic()
                self._draining.wait(RECONNECT_S)
            finally:
                self._turned_at = None
                self._running.clear()  # their connection is gone: the broker redelivers them, and the claim lets one in

    def _serve(self, connection: Connection) -> None:
        beaten_at = time.monotonic()
        queues = [self._app.amqp.queues[name] for name in self._queues]
        with (
            connection.channel() as channel,
            Consumer(channel, queues, on_message=self._take, accept=["json"], prefetch_count=SLOTS) as consumer,
        ):
            while not self._draining.is_set() or self._running:
                turn(consumer, self._app, self._queues)
                self._turned_at = time.monotonic()
                with suppress(TimeoutError):
                    connection.drain_events(timeout=POLL_S if self._running else IDLE_S)
                self._failing_since, self._has_said = None, False
                self._settle()
                if connection.supports_heartbeats and time.monotonic() - beaten_at > HEARTBEAT_S:
                    beaten_at = time.monotonic()
                    connection.heartbeat_check()

    def _take(self, message: Message) -> None:
        if self._draining.is_set():
            message.requeue()
            return
        self._running[self._pool.submit(self._work, message)] = message

    def _work(self, message: Message) -> None:
        """Run the task for a message of Celery's second protocol: arguments, keyword arguments, and options, unused here."""
        try:
            _, fields, _ = message.payload
            known = {str(key): value for key, value in fields.items()}
        except Exception:  # noqa: BLE001 - the task rejects a message that cannot be read
            known = {}
        self._run(**known)

    def _settle(self) -> None:
        for future in [future for future in self._running if future.done()]:
            message = self._running.pop(future)
            error = future.exception()
            if error is None:
                message.ack()
            else:
                message.reject(requeue=not isinstance(error, Reject) or bool(error.requeue))
