"""When to retry: exponential back-off with equal jitter, and the webhook schedule."""

from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime

# Standard Webhooks' example schedule, in seconds: ten attempts over about 75 hours.
WEBHOOK_SCHEDULE_S: Sequence[float] = (0, 5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
WEBHOOK_JITTER = 0.2  # +-20 %, so that receivers that failed together are not retried together


def backoff_s(failures: int, *, base_s: float, cap_s: float, random: Callable[[], float]) -> float:
    """Return the delay after the `failures`-th failure (from 1): half fixed, half random, doubling from `base_s` to `cap_s`.

    Equal jitter is never less than half the step, so a hot loop cannot happen.
    """
    step = min(cap_s, base_s * 2.0 ** min(failures - 1, 62))
    return step / 2 + random() * step / 2


def webhook_delay_s(attempts: int, *, schedule: Sequence[float], random: Callable[[], float]) -> float | None:
    """Return the delay before the next attempt after `attempts` attempts; None when the schedule is used up."""
    if attempts >= len(schedule):
        return None
    return schedule[attempts] * (1 + WEBHOOK_JITTER * (2 * random() - 1))


def retry_after_s(value: str, *, now: float) -> float | None:
    """Return the seconds that a Retry-After header asks to wait from `now` (Unix time); None if it cannot be parsed."""
    try:
        wanted = float(value) if value.isascii() and value.isdigit() else parsedate_to_datetime(value).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return max(0.0, wanted)
