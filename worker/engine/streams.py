"""Passes beside each other on the cores of a CPU, each on some of them.

A step that several cores share ends when the last of them ends: whatever else runs on one, all wait for. Passes on cores of their
own wait for nobody, and while one of them is at the Python between its steps, or its answers are being read, the others go on.
"""

import functools
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

MOST = 4  # streams that are chosen by themselves: each has its own batch, with its keys and values, in memory
P = ParamSpec("P")
T = TypeVar("T")


def streams_for(device: torch.device, wanted: int) -> int:
    """How many: those wanted, or as many as there are threads; a GPU takes one pass after the other."""
    if device.type != "cpu":
        return 1
    return wanted or min(MOST, torch.get_num_threads())


def ahead_of(device: torch.device, streams: int) -> int:
    """Batches launched before one is collected: one more than run, so that whatever ends has its successor waiting.

    One stream of a CPU runs in the thread that launches, which has done all by then.
    """
    if device.type == "cuda":
        return 1
    return streams if streams > 1 else 0


def open_streams(streams: int) -> Executor:
    """Where passes run: `streams` at once, which share torch's threads among them; one alone runs in the thread that submits it."""
    if streams == 1:
        return _Here()
    each = max(1, torch.get_num_threads() // streams)
    return ThreadPoolExecutor(streams, "stream", initializer=functools.partial(torch.set_num_threads, each))


class _Here(Executor):
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """What it raises is raised here: the caller knows of it before it goes on."""
        done: Future[T] = Future()
        done.set_result(fn(*args, **kwargs))
        return done
