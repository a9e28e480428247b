"""The dispatcher: publishes ready work and repairs what was lost. One leads, any number stand by; all its work is idempotent.

Each tick in order: the steps of `repairs`, deliveries to publish, shards to publish. All tenants depend on it, so only `stop()`
ends it: an error stays within its step or unit (`bulkhead`), and while PostgreSQL or the broker is down, the dispatcher waits.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from guardfleet.broker.celery_app import Publisher
from guardfleet.errors import AwayError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store.postgres.database import Database
from guardfleet.store.postgres.leader import Leadership, campaign
from guardfleet.store.postgres.sqlstate import DATABASE
from guardfleet.telemetry import metrics
from guardfleet.telemetry.logs import get_logger, told
from worker.dispatch.bulkhead import Bulkhead
from worker.dispatch.figures import Figures
from worker.dispatch.publishing import MessagePublisher
from worker.dispatch.repairs import CLEAR_S, HOUSEKEEPING_S, Mender, Step

REFILLS = 5  # ticks in the time of one while there is work
WORKERS_S = 1.0  # between two counts of the workers
AWAY_PAUSE_S = 1.0  # between tries while PostgreSQL or the broker is down
PUBLISH, ASK_BROKER = "publish_shards", "ask_broker"


@dataclass
class Dispatcher:
    """Runs in one thread until `stop()`; `last_tick` is for the liveness probe."""

    db: Database
    publisher: Publisher
    keyring: Keyring
    settings: Settings
    clock: Callable[[], float] = time.monotonic
    last_tick: float = field(default=0.0, init=False)
    steps: list[Step] = field(init=False)
    figures: Figures = field(init=False)
    _bulkhead: Bulkhead = field(init=False)
    _broker_wrong: str | None = field(default=None, init=False)  # what its last failure said, until it answers again
    _led: bool | None = field(default=None, init=False)  # what was logged last
    _is_paused: bool = field(default=False, init=False)
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)
    _ran: dict[str, float] = field(default_factory=dict, init=False)  # when each step last ran

    def __post_init__(self) -> None:
        """Put the steps in order."""
        self._bulkhead = Bulkhead(self.db.ping, self.clock)
        settings, tuning = self.settings, self.settings.tuning
        outgoing = MessagePublisher(self.db, self.publisher, settings.webhooks, tuning, self._bulkhead, self.clock)
        mender = Mender(self.db, self.keyring, settings.namespace, settings.retention, tuning, self._bulkhead)
        self.figures = Figures(self.db)
        self.steps = [
            *mender.steps(),
            Step("count_work", HOUSEKEEPING_S, self.figures.count),
            Step("count_workers", WORKERS_S, self.figures.workers),
            Step("count_deliveries", HOUSEKEEPING_S, self.figures.deliveries),
            Step("measure_size", CLEAR_S, self.figures.size),
            Step(ASK_BROKER, HOUSEKEEPING_S, self._ask_broker),
            Step("publish_deliveries", tuning.tick_s, outgoing.publish_deliveries),
            Step(PUBLISH, 0.0, outgoing.publish_shards),
        ]

    def run(self) -> None:
        """Lead or stand by until stopped. Waits while PostgreSQL or the broker is down."""
        self.last_tick = self.clock()
        while not self._stopped.is_set():
            try:
                with campaign(self.db) as leadership:
                    self._serve(leadership)
            except Exception as error:  # noqa: BLE001 - whatever it is, without a dispatcher the fleet stops
                self._pause(error)
        self._rest()

    def stop(self) -> None:
        """End `run()` after the current tick; safe to call twice, and from a signal handler."""
        self._stopped.set()

    def _serve(self, leadership: Leadership) -> None:
        was_leading: bool | None = None
        while not self._stopped.is_set():
            leading = leadership.try_lead()
            if leading is not was_leading:
                self._say(leading=leading)
                was_leading = leading
            pause_s = self.tick() if leading else self.settings.tuning.tick_s
            self.last_tick = self.clock()
            self._stopped.wait(pause_s)

    def tick(self) -> float:
        """Run every step that is due once; return how many seconds to wait before the next tick.

        While there is work, windows are refilled before they can be empty, and not after each shard: a query costs as much as a
        shard. Steps that are not due run no query: on a machine that also judges, each query takes time from the model. Raises
        AwayError if PostgreSQL is down or, after all other steps, if the broker is: a standby may reach it.
        """
        published = 0
        for step in self.steps:
            if self.clock() - self._ran.get(step.name, float("-inf")) < step.every_s:
                continue
            self.last_tick = self.clock()
            done = self._bulkhead.attempt(step.name, step.run)
            self._ran[step.name] = self.clock()
            if step.name == PUBLISH and isinstance(done, int):
                published = done
        away, self._bulkhead.away = self._bulkhead.away, None
        if isinstance(away, AwayError) and away.service != DATABASE:
            raise away
        if away is None:
            self._is_paused = False
        if published > self.settings.tuning.prefetch_window // 2:
            return 0.0
        return self.settings.tuning.tick_s / REFILLS if published else self.settings.tuning.tick_s

    def broker_wrong(self) -> str | None:
        """Return why the broker could not be used last, or None. One that stands by does not ask it."""
        return self._broker_wrong

    def queues_wrong(self) -> str | None:
        """Return the queues with work for which no worker is there, or None."""
        return f"no worker for {', '.join(self.figures.unserved)}" if self.figures.unserved else None

    def _ask_broker(self) -> None:
        """Ask the broker for anything, so that its absence is known before there is work for it."""
        self.publisher.ping()
        self._broker_wrong = None

    def _say(self, *, leading: bool) -> None:
        metrics.LEADING.set(int(leading))
        if not leading:
            self.figures.forget()
        if leading is not self._led:
            get_logger().info("dispatcher_leading" if leading else "dispatcher_standing_by")
            self._led = leading

    def _rest(self) -> None:
        metrics.LEADING.set(0)
        self.figures.forget()

    def _pause(self, error: Exception) -> None:
        """Wait for a server. Logged once: `outage_began` and its companions say the rest."""
        if not self._is_paused:
            get_logger().warning("dispatcher_paused", **told(error))
        self._is_paused = True
        if isinstance(error, AwayError) and error.service != DATABASE:
            self._broker_wrong = str(error)
            self._ran.pop(ASK_BROKER, None)  # asked in each tick until it answers
            metrics.LEADING.set(0)
        else:
            self._rest()
        self.last_tick = self.clock()
        self._stopped.wait(AWAY_PAUSE_S)
