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
from worker.dispatch.publishing import MessagePublisher
from worker.dispatch.repairs import Mender, Step

REFILLS = 5  # ticks in the time of one while there is work
AWAY_PAUSE_S = 1.0  # between tries while PostgreSQL or the broker is down
PUBLISH = "publish_shards"


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
    _bulkhead: Bulkhead = field(init=False)
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)
    _ran: dict[str, float] = field(default_factory=dict, init=False)  # when each step last ran

    def __post_init__(self) -> None:
        """Put the steps in order."""
        self._bulkhead = Bulkhead(self.db.ping, self.clock)
        settings, tuning = self.settings, self.settings.tuning
        outgoing = MessagePublisher(self.db, self.publisher, settings.webhooks, tuning, self._bulkhead, self.clock)
        mender = Mender(self.db, self.keyring, settings.namespace, settings.retention, tuning, self._bulkhead)
        self.steps = [
            *mender.steps(),
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
        metrics.LEADING.set(0)

    def stop(self) -> None:
        """End `run()` after the current tick; safe to call twice, and from a signal handler."""
        self._stopped.set()

    def _serve(self, leadership: Leadership) -> None:
        was_leading: bool | None = None
        while not self._stopped.is_set():
            leading = leadership.try_lead()
            if leading is not was_leading:
                get_logger().info("dispatcher_leading" if leading else "dispatcher_standing_by")
                metrics.LEADING.set(int(leading))
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
        if published > self.settings.tuning.prefetch_window // 2:
            return 0.0
        return self.settings.tuning.tick_s / REFILLS if published else self.settings.tuning.tick_s

    def _pause(self, error: Exception) -> None:
        get_logger().warning("dispatcher_paused", **told(error))
        metrics.LEADING.set(0)
        self.last_tick = self.clock()
        self._stopped.wait(AWAY_PAUSE_S)
