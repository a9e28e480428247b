"""A job as a client sees it, however it is reached."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol, TypeVar

from guardfleet.domain.options import JobOptions
from guardfleet.errors import LineError, RejectedError
from guardfleet.rows.columns import AS_NAMED, Columns
from guardfleet.rows.payload import PayloadRow

T = TypeVar("T")
Numbered = tuple[int, PayloadRow | LineError]  # the line from 1; of a table the row, of a JSON list the element
FINAL = ("completed", "failed", "cancelled", "expired")


@dataclass(frozen=True)
class SubmitOptions:
    """How a submit itself goes: nothing of it is stored with the job.

    `callback_secret`: signs the callback; made where it is left out. `columns`: which members of objects hold text, id and
    metadata. `allow_empty`: an input without a row is a job all the same. `fingerprint`: of the input and what is asked of it; a
    submit with it that was cut off is gone on with by the next, and with `once` one that went through is found again.
    `brings_workers`: the caller starts workers with the models that the job names. `on_progress` is told the texts committed so
    far; only a direct client has it, and `brings_workers`.
    """

    callback_secret: str | None = field(default=None, repr=False)
    columns: Columns = AS_NAMED
    allow_empty: bool = False
    fingerprint: bytes | None = None
    once: bool = False
    brings_workers: bool = False
    on_progress: Callable[[int], None] = lambda n: None


DEFAULTS, PLAIN = JobOptions(), SubmitOptions()  # of a submit that asks for nothing of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Where a job is. `raw` is all that the fleet tells of it, as the API's batch object.

    `status`: validating, in_progress, completed, cancelling, cancelled, failed or expired. `total`, `done` and `failed` count
    lines: those refused have failed. `callback_secret` is told once, with the submit that made it.
    """

    id: str
    status: str
    total: int
    done: int
    failed: int
    texts_per_s: float
    eta_s: float | None
    callback_secret: str | None = field(default=None, repr=False)
    warnings: list[str] = field(default_factory=list)  # rows to look at, although nothing is wrong with them
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in FINAL


class RowSource(Protocol):
    """Rows that a reader has numbered and checked: `producer.sources.Inputs` is one."""

    @property
    def name(self) -> str:
        """What a job of it is called."""

    @property
    def is_repeatable(self) -> bool:
        """Whether `rows` can be asked again."""

    def rows(self) -> Iterator[Numbered]:
        """Give every row with its number."""


def many(texts: Iterable[str | Mapping[str, Any]]) -> Iterable[str | Mapping[str, Any]]:
    """Return the texts; raises RejectedError for what is one text only."""
    if isinstance(texts, str | bytes | Mapping):
        raise RejectedError("texts are many: give a list of strings or rows, of one too.")
    return texts


def not_empty(rows: Iterable[T], name: str, *, allow_empty: bool) -> Iterator[T]:
    """Return the same rows, the first of them looked for now; raises RejectedError where there is none, unless that is allowed."""
    rows = iter(rows)
    for first in rows:
        return chain((first,), rows)
    if not allow_empty:
        raise RejectedError(f"the input has no rows: {name} (--allow-empty takes it all the same).")
    return iter(())
