"""Ends a process that is stuck: its messages go back, its leases run out, its supervisor starts a new one."""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from celery import bootsteps

from guardfleet.telemetry import metrics
from guardfleet.telemetry.logs import get_logger

STALLED_STATUS = 70  # EX_SOFTWARE: the supervisor has to start a new process
TICK_S = 1.0
CONNECTS_IN_S = 5.0  # a broker that is there takes a connection sooner
TICK_LIMIT_S = 30.0  # Celery's event loop ticks every second; after this long without a tick it is stuck


class Watchdog:
    """Ends the process when it is stuck where nothing inside can help it: a hung kernel, an event loop that waits for ever.

    `looks`: by log slug, a function that returns how long something has been stuck, and how long it may be, in seconds.
    """

    def __init__(
        self, looks: Mapping[str, tuple[Callable[[], float], float]], *, exit_process: Callable[[int], Any] = os._exit
    ) -> None:
        self._looks, self._exit = looks, exit_process
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; safe to call twice."""
        self._stopped.set()

    def _watch(self) -> None:
        stuck_before: set[str] = set()  # a process that was frozen while its clock went on gets one more look to recover
        while not self._stopped.wait(min(TICK_S, *(limit_s / 4 for _, limit_s in self._looks.values()))):
            for slug, (stuck_s, limit_s) in self._looks.items():
                seconds = stuck_s()
                if seconds <= limit_s:
                    stuck_before.discard(slug)
                elif slug not in stuck_before:
                    stuck_before.add(slug)
                else:
                    get_logger().error(slug, seconds=round(seconds, 1))
                    sys.stderr.flush()
                    self._exit(STALLED_STATUS)


class LoopTick:
    """When Celery's event loop last turned, which answers to `inspect ping` do not show.

    While the worker is connecting, the loop rightly does not turn: it is watched from a connection's start to its end.
    """

    def __init__(self) -> None:
        self._at: float | None = None
        self._lost_at = time.monotonic()  # since when it has had no connection, if it has none

    def step(self) -> type[bootsteps.StartStopStep]:
        """Return a consumer step that ticks from the consumer's timer; a reconnect clears the timer and restarts the steps."""
        tick, rest = self._tick, self._rest

        class Tick(bootsteps.StartStopStep):
            requires = ("celery.worker.consumer.tasks:Tasks",)

            def start(self, consumer: Any) -> None:
                tick()
                consumer.timer.call_repeatedly(TICK_S, tick)

            def stop(self, consumer: Any) -> None:
                rest()

            shutdown = stop

        return Tick

    def stuck_s(self) -> float:
        """Return the seconds since it last turned; 0 while it is not supposed to turn."""
        at = self._at
        return 0.0 if at is None else time.monotonic() - at

    def wrong(self) -> str | None:
        """Return what is wrong with the loop, or None."""
        stuck_s = self.stuck_s()
        return f"the event loop has not turned for {stuck_s:.0f} s" if stuck_s > TICK_LIMIT_S else None

    def away(self) -> str | None:
        """Return that the loop has no connection to the broker, or None."""
        is_away = self._at is None and time.monotonic() - self._lost_at > CONNECTS_IN_S
        return "the broker does not answer" if is_away else None

    def _tick(self) -> None:
        self._at = time.monotonic()
        metrics.LOOP_TICK.set(time.time())

    def _rest(self) -> None:
        self._at, self._lost_at = None, time.monotonic()
