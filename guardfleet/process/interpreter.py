"""GIL and GC tuning for processes with latency-sensitive threads, such as the engine's or one that answers a poll."""

import gc
import sys

SWITCH_S = 0.0001  # a waiting thread waits this long for one that computes, at each step; Python's default is 5 ms
YOUNG_OBJECTS = 10_000  # new containers between two collections; a shard or a page leaves hardly any behind


def hand_over_often() -> None:
    """Switch threads every tenth of a millisecond."""
    sys.setswitchinterval(SWITCH_S)


def keep_what_is_loaded() -> None:
    """Make the collector look at new objects only; call once everything is imported and loaded.

    A collection that walks a worker's half million objects stops all its threads for 0.2 s, every few seconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
