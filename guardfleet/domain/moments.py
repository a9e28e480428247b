"""Moments that people write: so long ago, or a date or time."""

import datetime as dt
import re

from guardfleet.domain.options import UNITS_S, WINDOW
from guardfleet.errors import RejectedError


def moment_of(text: str, name: str) -> dt.datetime:
    """Return the moment: so long ago (90m, 24h, 7d), or a date or time in ISO 8601, in UTC unless it names its offset."""
    if re.fullmatch(WINDOW, text):
        return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=int(text[:-1]) * UNITS_S[text[-1]])
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        raise RejectedError(
            f"{name} {text!r} is no time: give 90m, 24h, 7d, or 2026-01-31 or 2026-01-31T08:00:00.", param=name
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
