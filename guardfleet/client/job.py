"""A job as all clients see it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    """How a submit itself is carried out. None of it is stored with the job.

    `callback_secret`: signs the callback; generated if left out. `columns`: which members of objects hold text, id and metadata.
    `allow_empty`: make a job even of an input without rows. `fingerprint`: of the input and the options; the next submit with it
    resumes one that was interrupted, and with `once` finds the job of one that succeeded. `brings_workers`: the caller starts
    workers with the models that the job names. `on_progress` gets the number of texts committed so far. Only direct clients
    support `on_progress` and `brings_workers`.
    """

    callback_secret: str | None = field(default=None, repr=False)
    columns: Columns = AS_NAMED
    allow_empty: bool = False
    fingerprint: bytes | None = None
    once: bool = False
    brings_workers: bool = False
    on_progress: Callable[[int], None] = lambda n: None


DEFAULTS, PLAIN = JobOptions(), SubmitOptions()  # of a submit without any


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The status of a job. `raw` is all that the fleet says about it, as the API's batch object.

    `status`: validating, in_progress, completed, cancelling, cancelled, failed or expired. `total`, `done` and `failed` count
    lines; refused ones count as failed. `callback_secret` is returned only by the submit that generated it.
    """

    id: str
    status: str
    total: int
    done: int
    failed: int
    texts_per_s: float
    eta_s: float | None
    callback_secret: str | None = field(default=None, repr=False)
    warnings: list[str] = field(default_factory=list)  # about rows worth a look, although nothing is wrong with them
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_final(self) -> bool:
        """Whether the job has ended for good."""
        return self.status in FINAL


def listed(names: Sequence[str] | None) -> Sequence[str] | None:
    """Return the names, or the one name, as a list."""
    return [names] if isinstance(names, str) else names


class RowSource(Protocol):
    """Rows that a reader has numbered and checked: `producer.sources.Inputs` is one."""

    @property
    def name(self) -> str:
        """The name of a job made from it."""

    @property
    def is_repeatable(self) -> bool:
        """Whether `rows` can be called again."""

    def rows(self) -> Iterator[Numbered]:
        """Yield every row with its number."""


def many(texts: Iterable[str | Mapping[str, Any]]) -> Iterable[str | Mapping[str, Any]]:
    """Return the texts. Raises RejectedError for a single text."""
    if isinstance(texts, str | bytes | Mapping):
        raise RejectedError("texts must be an iterable of strings or rows: put a single text into a list.")
    return texts


def not_empty(rows: Iterable[T], name: str, *, allow_empty: bool) -> Iterator[T]:
    """Return the rows, after looking for the first. Raises RejectedError if there is none, unless `allow_empty`."""
    rows = iter(rows)
    for first in rows:
        return chain((first,), rows)
    if not allow_empty:
        raise RejectedError(f"the input has no rows: {name} (use --allow-empty to accept that).")
    return iter(())
