"""Limits of a key: requests (its rate) and texts (its quota) per window, counted in Redis if processes share them."""

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

RETRIED_S = 120  # OpenAI's clients do not wait longer than this, and are told not to retry


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of one limit of a key."""

    unit: str  # `requests` or `texts`
    amount: int
    window_s: int
    remaining: int
    reset_s: int

    @property
    def policy(self) -> str:
        """The limit, in the IETF draft's notation."""
        return f'"{self.unit}";q={self.amount};w={self.window_s}'

    @property
    def left(self) -> str:
        """The remainder, in the same notation."""
        return f'"{self.unit}";r={self.remaining};t={self.reset_s}'


class Throttle:
    """Counts by key. If the shared store is down, nobody is refused: a limit is no reason for an outage."""

    def __init__(self, rate: str | None, quota: str | None, url: str | None, *, namespace: str) -> None:
        self._is_local = url is None
        self._limits = {unit: _parsed(limit) for unit, limit in (("requests", rate), ("texts", quota)) if limit}
        options = {} if url is None else {"key_prefix": f"{namespace}:limits", "wrap_exceptions": True}
        storage = storage_from_string(url or "memory://", **options)  # type: ignore[arg-type]
        self._limiter = SlidingWindowCounterRateLimiter(storage)

    async def count(self, request: Request, caller: Caller) -> None:
        """Count one request. Raises ProblemError 429 if it exceeds the rate."""
        await self._spend(request, caller, "requests", 1, "rate_limit_exceeded")

    async def spend(self, request: Request, caller: Caller, texts: int) -> None:
        """Take texts off the key's quota. Raises ProblemError 429, and takes none, if the quota does not suffice."""
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
            may = f"this key is limited to {allowance.amount:,} {unit} in {allowance.window_s:,} s"
            detail = f"{may}; {allowance.remaining:,} are left, and this request needs {n:,}."
            if n > allowance.amount:
                raise ProblemError(429, code, f"{detail} Split it: it can never be admitted.", headers={"x-should-retry": "false"})
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
    """Build the headers that the IETF draft (RateLimit) and OpenAI's clients (x-ratelimit) define."""
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
        raise ConfigurationError(f"{limit!r} is not a valid rate limit; write it as `600/minute` or `1000000/day`.") from error
