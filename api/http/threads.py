"""Blocking calls beside the event loop."""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
from starlette.concurrency import run_in_threadpool

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a store function, which blocks, beside the event loop: one store serves the API and the workers."""
    return await run_in_threadpool(function, *args, **kwargs)


async def beside(limiter: anyio.CapacityLimiter, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As `in_thread`, but one of the few threads that do this and nothing else: of those that all requests share none is taken."""
    return await anyio.to_thread.run_sync(partial(function, *args, **kwargs), limiter=limiter)
