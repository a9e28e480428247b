"""Parallel passes on the cores of a CPU, each on some of them.

A parallel region ends with its slowest core, so one preempted core stalls all of them. Passes on disjoint cores do not wait for
each other, and while one runs the Python between its steps, or its answers are read, the others go on.
"""

import functools
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

MOST = 4  # default maximum: each stream has a batch, with keys and values, in memory
P = ParamSpec("P")
T = TypeVar("T")


def streams_for(device: torch.device, wanted: int) -> int:
    """Return the number of streams: as wanted, or one per thread; a GPU runs one pass after the other."""
    if device.type != "cpu":
        return 1
    return wanted or min(MOST, torch.get_num_threads())


def ahead_of(device: torch.device, streams: int) -> int:
    """Return how many batches to launch before one is collected: one more than run, so that a successor is always ready.

    A single stream of a CPU runs in the thread that launches, which has finished by then.
    """
    if device.type == "cuda":
        return 1
    return streams if streams > 1 else 0


def open_streams(streams: int) -> Executor:
    """Return an executor for `streams` passes at once, which divide torch's threads; a single one runs in the caller's thread."""
    if streams == 1:
        return _Here()
    each = max(1, torch.get_num_threads() // streams)
    return ThreadPoolExecutor(streams, "stream", initializer=functools.partial(torch.set_num_threads, each))


class _Here(Executor):
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Run now, and raise what it raises here, so that the caller learns of it before it goes on."""
        done: Future[T] = Future()
        done.set_result(fn(*args, **kwargs))
        return done
