"""How long a test waits for an event: a number of seconds on a good machine, more on one that is slow or crowded."""

import os
import time

ROUNDS = 2_000_000
GOOD_MACHINE_S = 0.06  # for ROUNDS rounds, on 2 idle cores


def _slowness() -> float:
    """The slowdown of this machine: of a plain loop or, if larger, the number of processes per core."""
    started = time.perf_counter()
    for _ in range(ROUNDS):
        pass
    loop = (time.perf_counter() - started) / GOOD_MACHINE_S
    crowd = os.getloadavg()[0] / (os.cpu_count() or 1)
    return max(1.0, loop, crowd)


SLOWNESS = _slowness()  # measured once per process: only a failing test waits too long


def patience(seconds: float) -> float:
    """Convert seconds on a good machine to seconds here."""
    return seconds * SLOWNESS
