"""Run blocking calls beside the event loop."""

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

import anyio
from starlette.concurrency import run_in_threadpool

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking store function beside the event loop: the API and the workers share one store."""
    return await run_in_threadpool(function, *args, **kwargs)


async def beside(limiter: anyio.CapacityLimiter, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a function like `in_thread`, but in one of the few threads reserved for its kind, so that it takes no shared one."""
    return await anyio.to_thread.run_sync(partial(function, *args, **kwargs), limiter=limiter)
