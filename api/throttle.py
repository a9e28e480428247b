"""How often a key may ask: a sliding window, in Redis where all API processes are to share it, and said in each answer."""

import time
from dataclasses import dataclass

from fastapi import Request
from limits import RateLimitItem, parse
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.concurrency import run_in_threadpool

from api.problems import ProblemError
from guardfleet.store.keys import Caller
from guardfleet.telemetry.logs import get_logger


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a key has left."""

    limit: RateLimitItem
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """As the IETF draft (RateLimit) and OpenAI's clients (x-ratelimit) read it."""
        amount, window_s = self.limit.amount, self.limit.get_expiry()
        return {
            "RateLimit-Policy": f'"key";q={amount};w={window_s}',
            "RateLimit": f'"key";r={self.remaining};t={self.reset_s}',
            "x-ratelimit-limit-requests": str(amount),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": f"{self.reset_s}s",
        }


class Throttle:
    """Counts requests by key. With the shared store away nobody is refused: a limit is no reason to be down."""

    def __init__(self, limit: str | None, url: str | None, *, namespace: str) -> None:
        self._is_local = url is None
        self._limited: tuple[RateLimitItem, SlidingWindowCounterRateLimiter] | None = None
        if limit:
            options = {} if url is None else {"key_prefix": f"{namespace}:limits", "wrap_exceptions": True}
            storage = storage_from_string(url or "memory://", **options)  # type: ignore[arg-type]
            self._limited = parse(limit), SlidingWindowCounterRateLimiter(storage)

    async def count(self, request: Request, caller: Caller) -> None:
        """Count one request; ProblemError 429 when it is one too many."""
        if self._limited is None:
            return
        name, (limit, limiter) = str(caller.key_id), self._limited
        try:
            if self._is_local:
                is_allowed, allowance = _hit(limit, limiter, name)
            else:
                is_allowed, allowance = await run_in_threadpool(_hit, limit, limiter, name)
        except StorageError as error:
            get_logger().warning("throttle_away", reason=type(error).__name__)
            return
        request.state.headers = allowance.headers()
        if not is_allowed:
            retry_s = max(1, allowance.reset_s)
            detail = f"this key may ask {allowance.limit.amount} times in {allowance.limit.get_expiry()} s."
            raise ProblemError(429, "rate_limit_exceeded", detail, headers={"Retry-After": str(retry_s), "x-should-retry": "true"})


def _hit(limit: RateLimitItem, limiter: SlidingWindowCounterRateLimiter, name: str) -> tuple[bool, Allowance]:
    is_allowed = limiter.hit(limit, name)
    stats = limiter.get_window_stats(limit, name)
    return is_allowed, Allowance(limit, max(0, stats.remaining), max(0, round(stats.reset_time - time.time())))
