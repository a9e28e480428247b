"""How long a test waits for what has to come: a number of seconds on a good machine, and more on one that is slow or crowded."""

import os
import time

ROUNDS = 2_000_000
GOOD_MACHINE_S = 0.06  # for so many rounds, on 2 cores of which nobody else wants any


def _slowness() -> float:
    """How many times longer a plain loop takes here, and how many processes want each core."""
    started = time.perf_counter()
    for _ in range(ROUNDS):
        pass
    loop = (time.perf_counter() - started) / GOOD_MACHINE_S
    crowd = os.getloadavg()[0] / (os.cpu_count() or 1)
    return max(1.0, loop, crowd)


SLOWNESS = _slowness()  # once a process: a wait that is too long costs a failing test alone


def patience(seconds: float) -> float:
    """So many seconds of a good machine."""
    return seconds * SLOWNESS
