"""A worker process from start to end: the one place that knows the order of things.

Start: database, model, leases, watchdog, and only then consuming (Celery the bulk shards, `interactive_consumer` the interactive
ones), so that no process takes a message before it can work. Stop (SIGTERM): the signal handler only sets an event; a thread then
drains the engine, which finishes the batch on the device and hands the rest back; each task releases its lease and returns its
message; Celery ends once its tasks have ended; then the interactive consumer, the engine, the leases and the database are closed.
Leases outlive tasks, the database outlives leases.
"""

import os
import random
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning, SecurityWarning

from guardfleet.broker.celery_app import RefusedError, add_queues, declare, make_app
from guardfleet.domain.detection import route_to
from guardfleet.domain.lanes import Lane, Queues
from guardfleet.domain.verdict import GUARD, Model
from guardfleet.errors import ConfigurationError, GuardfleetError, RetryableError
from guardfleet.process import interpreter
from guardfleet.process.readiness import say_ready
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import installation, migrate
from guardfleet.store.policy import policies
from guardfleet.store.postgres import pooler
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import leases as shards
from guardfleet.telemetry import memory
from guardfleet.telemetry.health import Health, Part
from guardfleet.telemetry.logs import get_logger
from guardfleet.telemetry.probes import Reporting
from worker.moderation import tasks
from worker.moderation.comparing import Comparer
from worker.moderation.leases import LeaseKeeper
from worker.moderation.seats import Seats
from worker.moderation.throughput import Throughput
from worker.process.bringing import Bringer, MakeEngine
from worker.process.following import Follower
from worker.process.interactive_consumer import Express
from worker.process.loading import loaded
from worker.process.presence import Presence
from worker.process.queues import BulkQueues
from worker.process.watchdog import STALLED_STATUS, TICK_LIMIT_S, LoopTick, Watchdog
from worker.webhooks import delivery


@dataclass
class Drain:
    """Turns SIGTERM into an orderly end. Tasks watch `requested`."""

    requested: threading.Event = field(default_factory=threading.Event)

    def watch(self, seats: Seats) -> None:
        """Drain the engines from a thread of its own once requested: a signal handler must not wait for a lock."""
        threading.Thread(target=self._drain, args=(seats,), name="drain", daemon=True).start()

    def request(self, **_: Any) -> None:
        """Handle Celery's `worker_shutting_down`, sent on the main thread inside the signal handler."""
        self.requested.set()

    def _drain(self, seats: Seats) -> None:
        self.requested.wait()
        get_logger().info("draining")
        seats.drain()


def run_moderator(settings: Settings, make_engine: MakeEngine) -> int:
    """Run one worker process that moderates; return its exit status."""
    refuse_soft_shutdown()
    with Reporting(settings, "worker") as health:
        return _moderate(settings, make_engine, health)


def _moderate(settings: Settings, make_engine: MakeEngine, health: Health) -> int:
    db, keyring = open_store(settings, health, application="guardfleet-worker")
    worker_name, throughput = shards.holder(os.getpid()), Throughput()
    presence = Presence(db, worker_name)
    presence.start()
    bringer = Bringer(db, keyring, settings, make_engine, throughput, engine_died)
    first, served = loaded(bringer, health)
    seats = Seats(first)
    presence.ready(first.model, throughput.rates)
    presence.occupies(lambda: (seats.device(), *seats.memory_bytes()))
    app = make_app(settings, "guardfleet-worker", model=route_to(first.model))
    drain, tick = Drain(), LoopTick()
    drain.watch(seats)
    leases, comparer = LeaseKeeper(db, lease_s=settings.tuning.lease_s), Comparer(db, seats)
    moderator = tasks.Moderator(
        db=db,
        keyring=keyring,
        seats=seats,
        leases=leases,
        tuning=settings.tuning,
        worker=worker_name,
        draining=drain.requested,
        random=random.random,
        end=engine_died,
        witness=comparer.witness,
    )
    task = tasks.register(app, moderator)
    bulk, interactive = queues_of(settings, first.model)
    express, bulk_queues = Express(app, interactive, task, drain.requested), BulkQueues(app, bulk)
    del first  # or it would stay in memory when it is replaced

    def changed(model: Model | None) -> None:
        if model is not None:
            add_queues(app, settings, route_to(model))
            presence.ready(model, throughput.rates)
        names = queues_of(settings, model) if model is not None else [[], []]
        bulk_queues.consume(names[Lane.BULK])
        express.consume(names[Lane.INTERACTIVE])

    follower = Follower(bringer, seats, served, worker_name, changed=changed, stall_s=settings.tuning.engine_stall_s)
    watchdog = Watchdog(
        {
            "engine_stalled": (seats.busy_s, settings.tuning.engine_stall_s),
            "loop_stalled": (tick.stuck_s, TICK_LIMIT_S),
            "express_stalled": (express.stuck_s, TICK_LIMIT_S),
        }
    )
    health.live = tick.wrong
    for part in (
        Part("broker", lambda: tick.away() or express.away(), is_vital=False, address=settings.broker_address),
        Part("policies", partial(policies.not_understood, db), is_vital=False),
        Part("device", lambda: memory.in_words(*seats.memory_bytes(), "the device's memory"), is_vital=False),
        Part("deployment", follower.wrong, is_vital=False),
    ):
        health.add(part)
    app.steps["consumer"].add(bulk_queues.step())
    for one in (leases, watchdog, comparer, follower):
        one.start()
    presence.follow(follower.look)
    express.start()
    ready = partial(_say_ready, health)
    try:
        return consume(app, settings.worker.concurrency, settings, bulk, worker_name, drain, tick, ready)
    finally:
        drain.request()
        for first_to_end in (follower, comparer):
            first_to_end.stop()
        express.stop(timeout_s=settings.tuning.engine_stall_s)
        seats.stop(timeout_s=settings.tuning.engine_stall_s)
        for last in (watchdog, leases, presence):
            last.stop()
        db.close()
        get_logger().info("worker_stopped")


def queues_of(settings: Settings, model: Model) -> list[list[str]]:
    """Return, by lane, the queues of a worker with this model: jobs that name it and, unless `named_only`, jobs that name none.

    A detector's worker has the queue of its detector alone.
    """
    queues, is_detectors = Queues.of(settings.namespace), model.detector != GUARD
    models = [route_to(model)] if is_detectors or settings.worker.named_only else [None, model.name]
    return [[queues.of_model(lane, name) for name in models] for lane in Lane]


def run_deliverer(settings: Settings) -> int:
    """Run one worker process that delivers webhooks; return its exit status."""
    refuse_soft_shutdown()
    with Reporting(settings, "webhooks") as health:
        return _deliver(settings, health)


def _deliver(settings: Settings, health: Health) -> int:
    db, keyring = open_store(settings, health, application="guardfleet-webhooks")
    app = make_app(settings, "guardfleet-webhooks")
    drain, tick = Drain(), LoopTick()
    pool = delivery.make_pool(settings.webhooks)
    deliverer = delivery.Deliverer(
        db=db,
        keyring=keyring,
        webhooks=settings.webhooks,
        tuning=settings.tuning,
        pool=pool,
        now=time.time,
        random=random.random,
        pause=drain.requested.wait,
    )
    delivery.register(app, deliverer)
    watchdog = Watchdog({"loop_stalled": (tick.stuck_s, TICK_LIMIT_S)})
    watchdog.start()
    health.live = tick.wrong
    health.add(Part("broker", tick.away, is_vital=False, address=settings.broker_address))
    ready = partial(_say_ready, health)
    worker_name = f"webhooks@{socket.gethostname()}:{os.getpid()}"
    try:
        return consume(app, delivery.SENDERS, settings, [Queues.of(settings.namespace).webhooks], worker_name, drain, tick, ready)
    finally:
        watchdog.stop()
        pool.close()
        db.close()
        get_logger().info("worker_stopped")


def consume(
    app: Celery,
    slots: int,
    settings: Settings,
    queues: list[str],
    name: str,
    drain: Drain,
    tick: LoopTick,
    ready: Callable[..., None],
) -> int:
    """Consume messages until SIGTERM; return Celery's exit status. Calls `ready` once it consumes."""
    app.conf.worker_consumer = "worker.process.celery_consumer:Consumer"
    warnings.filterwarnings("ignore", category=SecurityWarning)  # root: plain text among the JSON; images do not run as root
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)  # at each lost connection, about a setting we set
    try:
        declare(app, settings)
    except RefusedError as error:
        raise ConfigurationError(f"{error} Is broker_url right?") from None
    except RetryableError as error:  # the broker may start later; until then work waits in PostgreSQL
        get_logger().warning("worker_starting", reason=str(error))
    signals.worker_shutting_down.connect(drain.request, weak=False)
    app.steps["consumer"].add(tick.step())
    signals.worker_ready.connect(ready, weak=False)
    worker = app.Worker(
        hostname=name.replace(":", "-"),
        pool="threads",
        concurrency=slots,
        queues=queues,
        without_gossip=True,
        without_mingle=True,
        quiet=True,
        loglevel="WARNING",
        optimization="fair",
    )
    try:
        worker.start()
    finally:
        signals.worker_shutting_down.disconnect(drain.request)
        signals.worker_ready.disconnect(ready)
    return int(worker.exitcode or 0)


def refuse_soft_shutdown() -> None:
    """Raise if REMAP_SIGTERM is set: Celery's threads pool would raise instead of stopping, its solo pool lose a message."""
    if os.environ.get("REMAP_SIGTERM"):
        raise ConfigurationError(
            "REMAP_SIGTERM is set and would lose work at shutdown: unset it, guardfleet drains on SIGTERM by itself."
        )


def engine_died(reason: str) -> None:
    """End the process: its messages go back, its leases run out, its supervisor starts a fresh one."""
    get_logger().error("engine_died", reason=reason)
    sys.stderr.flush()
    os._exit(STALLED_STATUS)


def _say_ready(health: Health, **_: Any) -> None:
    interpreter.keep_what_is_loaded()
    health.ready()
    say_ready()
    get_logger().info("worker_ready")


def open_store(settings: Settings, health: Health, *, application: str) -> tuple[Database, Keyring]:
    """Open the database, checking its schema, pooler and secret key, and return it with the keyring.

    Waits for a server that is away and for a migration that has not run, and its health says so. Raises ConfigurationError.
    """
    db = Database(settings.required("database_url"), application=application)
    try:
        keyring = Keyring.of(settings)
        health.add(installation.part(db, keyring))
        health.phase("waiting for PostgreSQL and its migrations")
        migrate.wait_for_head(db, or_migration=True)
        pooler.require_prepared(db)
        installation.require_key(db, keyring)
    except GuardfleetError:
        db.close()
        raise
    health.phase("starting")
    return db, keyring
