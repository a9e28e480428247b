"""How Python is set in processes whose threads wait for each other: the engine's for a shard that is read, a poll for a page."""

import gc
import sys

SWITCH_S = 0.0001  # Python's own 5 ms is what a thread waits for another that computes, at each of its steps
YOUNG_OBJECTS = 10_000  # new containers between two looks for cycles, of which a shard or a page leaves hardly any


def hand_over_often() -> None:
    """Let waiting threads have the interpreter after a tenth of a millisecond."""
    sys.setswitchinterval(SWITCH_S)


def keep_what_is_loaded() -> None:
    """To be called once all is imported and loaded: from now on the collector looks at new objects only.

    A collection that walks the half million objects of a worker stops all its threads for 0.2 s, once in a few seconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
