"""A process that is stuck ends itself: its supervisor starts a new one, and its leases run out."""

import threading
from typing import Any

import pytest

from tests.services.patience import patience
from worker.process.watchdog import STALLED_STATUS, LoopTick, Watchdog


def test_what_is_stuck_for_too_long_ends_the_process() -> None:
    ended = threading.Event()
    statuses: list[int] = []

    def leave(status: int) -> None:
        statuses.append(status)
        ended.set()

    dog = Watchdog({"engine_stalled": (lambda: 0.0, 0.01), "loop_stalled": (lambda: 0.5, 0.01)}, exit_process=leave)
    dog.start()
    assert ended.wait(patience(10))
    dog.stop()
    assert statuses[0] == STALLED_STATUS


@pytest.mark.parametrize(("slowest", "ends"), [(0.039, False), (0.041, True)])
def test_what_moves_is_left_alone_however_close_it_comes(slowest: float, ends: bool) -> None:
    seen = iter([slowest, 0.0, slowest, slowest, 0.0])
    looked, statuses = threading.Event(), []

    def moves() -> float:
        found = next(seen, None)
        if found is None:
            looked.set()
        return found or 0.0

    dog = Watchdog({"loop_stalled": (moves, 0.04)}, exit_process=statuses.append)
    dog.start()
    assert looked.wait(patience(10))
    dog.stop()
    assert bool(statuses) is ends


class Timer:
    """Celery's, as far as the step needs it."""

    def call_repeatedly(self, seconds: float, call: Any) -> None:
        self.call = call


class Consumer:
    timer = Timer()


def test_the_loop_is_watched_while_it_is_connected_and_only_then() -> None:
    tick = LoopTick()
    step = tick.step().__new__(tick.step())
    assert tick.stuck_s() == 0.0  # not started
    step.start(Consumer())
    assert tick.stuck_s() > 0.0
    assert tick.wrong() is None
    tick._at = -1e6
    assert "has not turned" in str(tick.wrong())
    Consumer.timer.call()
    assert tick.wrong() is None
    step.stop(Consumer())
    assert tick.stuck_s() == 0.0  # the broker is away: the loop is not meant to turn
