"""What a key may have: so many requests (its rate) and texts (its quota) in a window, counted in Redis where processes share it."""

import time
from collections.abc import Collection
from dataclasses import dataclass

from fastapi import Request
from limits import RateLimitItem, parse
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter
from starlette.concurrency import run_in_threadpool

from api.http.problems import ProblemError
from guardfleet.errors import ConfigurationError
from guardfleet.store.keys import Caller
from guardfleet.telemetry.logs import get_logger

RETRIED_S = 120  # a client of OpenAI's does not wait longer than this, and is told not to try


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a key has left of one limit."""

    unit: str  # `requests` or `texts`
    amount: int
    window_s: int
    remaining: int
    reset_s: int

    @property
    def policy(self) -> str:
        """The limit, as the IETF draft puts it."""
        return f'"{self.unit}";q={self.amount};w={self.window_s}'

    @property
    def left(self) -> str:
        """What is left of it, likewise."""
        return f'"{self.unit}";r={self.remaining};t={self.reset_s}'


class Throttle:
    """Counts by key. With the shared store away nobody is refused: a limit is no reason to be down."""

    def __init__(self, rate: str | None, quota: str | None, url: str | None, *, namespace: str) -> None:
        self._is_local = url is None
        self._limits = {unit: _parsed(limit) for unit, limit in (("requests", rate), ("texts", quota)) if limit}
        options = {} if url is None else {"key_prefix": f"{namespace}:limits", "wrap_exceptions": True}
        storage = storage_from_string(url or "memory://", **options)  # type: ignore[arg-type]
        self._limiter = SlidingWindowCounterRateLimiter(storage)

    async def count(self, request: Request, caller: Caller) -> None:
        """Count one request; ProblemError 429 when it is one too many."""
        await self._spend(request, caller, "requests", 1, "rate_limit_exceeded")

    async def spend(self, request: Request, caller: Caller, texts: int) -> None:
        """Take texts off the key's quota; ProblemError 429 when it has not so many left, and then none is taken."""
        if texts:
            await self._spend(request, caller, "texts", texts, "insufficient_quota")

    async def _spend(self, request: Request, caller: Caller, unit: str, n: int, code: str) -> None:
        limit = self._limits.get(unit)
        if limit is None:
            return
        try:
            if self._is_local:
                is_allowed, allowance = self._hit(limit, unit, caller, n)
            else:
                is_allowed, allowance = await run_in_threadpool(self._hit, limit, unit, caller, n)
        except StorageError as error:
            get_logger().warning("throttle_away", reason=type(error).__name__)
            return
        known = {**getattr(request.state, "allowances", {}), unit: allowance}
        request.state.allowances, request.state.headers = known, _headers(known.values())
        if not is_allowed:
            may = f"this key may have {allowance.amount:,} {unit} in {allowance.window_s:,} s"
            detail = f"{may}; {allowance.remaining:,} are left, and this takes {n:,}."
            if n > allowance.amount:
                raise ProblemError(429, code, f"{detail} It never will be.", headers={"x-should-retry": "false"})
            retry_s = max(1, allowance.reset_s)
            should_retry = "true" if retry_s <= RETRIED_S else "false"
            raise ProblemError(429, code, detail, headers={"Retry-After": str(retry_s), "x-should-retry": should_retry})

    def _hit(self, limit: RateLimitItem, unit: str, caller: Caller, n: int) -> tuple[bool, Allowance]:
        names = str(caller.key_id), unit
        is_allowed = self._limiter.hit(limit, *names, cost=n)
        stats = self._limiter.get_window_stats(limit, *names)
        reset_s = max(0, round(stats.reset_time - time.time()))
        return is_allowed, Allowance(unit, limit.amount, limit.get_expiry(), max(0, stats.remaining), reset_s)


def _headers(known: Collection[Allowance]) -> dict[str, str]:
    """As the IETF draft (RateLimit) and OpenAI's clients (x-ratelimit) read them."""
    headers = {
        "RateLimit-Policy": ", ".join(allowance.policy for allowance in known),
        "RateLimit": ", ".join(allowance.left for allowance in known),
    }
    for allowance in known:
        headers |= {
            f"x-ratelimit-limit-{allowance.unit}": str(allowance.amount),
            f"x-ratelimit-remaining-{allowance.unit}": str(allowance.remaining),
            f"x-ratelimit-reset-{allowance.unit}": f"{allowance.reset_s}s",
        }
    return headers


def _parsed(limit: str) -> RateLimitItem:
    try:
        return parse(limit)
    except ValueError as error:
        raise ConfigurationError(f"{limit!r} is no limit; write one as `600/minute` or `1000000/day`.") from error
