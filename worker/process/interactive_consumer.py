"""A slot for interactive shards of its own: bulk shards, which take their time, can hold all of Celery's.

Celery has one pool for all queues of a worker, so this takes the interactive ones beside it: one thread owns the connection, takes,
acknowledges and hands back; a few others run the same task that Celery would. What a message means, and what becomes of it, is the
task's to say, as there: it returns and is acknowledged, or raises Reject.
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

SLOTS = 2
POLL_S = 0.05  # between looks for slots that have ended, while any is taken
IDLE_S = 0.5  # between looks whether to end, while none is
RECONNECT_S = 1.0
HEARTBEAT_S = 10.0  # between looks at the connection's heartbeat, which is due every 30


class Express:
    """Consumes `queues` with slots of its own until `draining` is set. `run`: the task, given a message's fields."""

    def __init__(self, app: Celery, queues: Sequence[str], run: Callable[..., None], draining: threading.Event) -> None:
        self._app, self._queues, self._run, self._draining = app, queues, run, draining
        self._pool = ThreadPoolExecutor(SLOTS, thread_name_prefix="express")
        self._running: dict[Future[None], Message] = {}
        self._thread = threading.Thread(target=self._live, name="express", daemon=True)
        self._turned_at: float | None = None

    def start(self) -> None:
        """Start consuming; the broker may be away."""
        self._thread.start()

    def stop(self, *, timeout_s: float) -> None:
        """Wait for what is in work; to be called once draining is set."""
        self._thread.join(timeout_s)
        self._pool.shutdown(wait=False)

    def stuck_s(self) -> float:
        """Seconds since its loop last turned; 0 where it is connecting."""
        at = self._turned_at
        return 0.0 if at is None else time.monotonic() - at

    def _live(self) -> None:
        while not self._draining.is_set():
            try:
                with connected(self._app, max_retries=1) as connection:
                    self._serve(connection)
            except Exception as error:  # noqa: BLE001 - whatever it is, this thread must not end: nobody else takes these queues
                get_logger().warning("express_reconnecting", reason=type(error).__name__)
                self._draining.wait(RECONNECT_S)
            finally:
                self._turned_at = None
                self._running.clear()  # of a connection that is gone: the broker hands them out again, the claim lets one in

    def _serve(self, connection: Connection) -> None:
        beaten_at = time.monotonic()
        queues = [self._app.amqp.queues[name] for name in self._queues]
        with (
            connection.channel() as channel,
            Consumer(channel, queues, on_message=self._take, accept=["json"], prefetch_count=SLOTS),
        ):
            while not self._draining.is_set() or self._running:
                self._turned_at = time.monotonic()
                with suppress(TimeoutError):
                    connection.drain_events(timeout=POLL_S if self._running else IDLE_S)
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
        """A message of Celery's second protocol: arguments, keyword arguments, and what is not used here."""
        try:
            _, fields, _ = message.payload
            known = {str(key): value for key, value in fields.items()}
        except Exception:  # noqa: BLE001 - what cannot be read is no message, which the task says
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
