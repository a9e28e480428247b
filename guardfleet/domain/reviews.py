"""Reviewing by people: queues, the kinds of tasks that they hand out, and when somebody should rest."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from guardfleet.domain.verdict import Severity
from guardfleet.errors import RejectedError

MOST_NAME, MOST_WHO, MOST_REVIEWERS = 100, 200, 1000
LEAST_LEASE_S, MOST_LEASE_S = 5, 86_400
MOST_BREAK_AFTER = 1000
REST = dt.timedelta(minutes=15)  # without a decision: as good as a break
REMEMBERED = 1000  # of a person's last decisions, which is more than any break waits for


class Kind(IntEnum):
    """What a task asks of a person; stored as its number."""

    FIRST = 0  # what is this text?
    SECOND = 1  # the same again, of somebody else, who does not learn that it is a second time
    GOLDEN = 2  # what is this text, whose label is known: measures who answers
    RESOLUTION = 3  # which of two answers is right: written when it is decided, and handed out to nobody


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """What may be changed of a queue. Shares are of 1; `reviewers` None: everybody in the tenant who may review."""

    name: str
    reviewers: tuple[str, ...] | None = None
    second_share: float = 0.1
    golden_share: float = 0.0
    break_after: int = 20
    shows_verdict: bool = False
    lease_s: int = 900
    is_open: bool = True

    def __post_init__(self) -> None:
        """Raise RejectedError for what no queue can have."""
        if not 0 < len(self.name) <= MOST_NAME or not self.name.isprintable():
            raise RejectedError(f"the name must have 1 to {MOST_NAME} printable characters.", param="name")
        for name in ("second_share", "golden_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise RejectedError("a share of texts must be from 0 to 100 percent.", param=name)
        if not LEAST_LEASE_S <= self.lease_s <= MOST_LEASE_S:
            raise RejectedError(
                f"a text can go to another person after {LEAST_LEASE_S} to {MOST_LEASE_S:,} seconds.", param="lease_s"
            )
        if not 0 <= self.break_after <= MOST_BREAK_AFTER:
            raise RejectedError(
                f"a break can be suggested after 1 to {MOST_BREAK_AFTER} unsafe texts, or never (0).", param="break_after"
            )
        some = self.reviewers or ()
        if len(some) > MOST_REVIEWERS or not all(0 < len(one) <= MOST_WHO and one.isprintable() for one in some):
            raise RejectedError(
                f"a queue has at most {MOST_REVIEWERS:,} reviewers, an id of up to {MOST_WHO} printable characters each.",
                param="reviewers",
            )

    def admits(self, who: str) -> bool:
        """Return whether this person reviews here."""
        return self.reviewers is None or who in self.reviewers


def unsafe_since_rest(decided: Iterable[tuple[dt.datetime, Severity]], *, rested_at: dt.datetime | None, now: dt.datetime) -> int:
    """Count the unsafe texts of decisions, newest first, since the last break: one that was taken, or a pause of REST."""
    n, later = 0, now
    for at, severity in decided:
        if later - at >= REST or (rested_at is not None and at <= rested_at):
            break
        n, later = n + (severity is Severity.UNSAFE), at
    return n
