"""What rules read of many verdicts at once: a column for each number, in the codes that are stored.

The same columns come from a worker that is about to write verdicts and from rows that were written months ago, so a decision is the
same whenever it is made. A column is made when it is first read: most policies read few, and of few texts.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from guardfleet.domain.verdict import CATEGORY_CHOICES, ServedBy, Severity
from guardfleet.domain.versions import name_of
from guardfleet.verdicts.encoding import ALL_CATEGORIES, UNKNOWN_ODDS, Codes

T = TypeVar("T")
N_CATEGORIES = len(CATEGORY_CHOICES)
NO_PROBABILITIES, NONE_KNOWN = bytes(3), bytes([UNKNOWN_ODDS] * N_CATEGORIES)
NOT_SAID, SAID, OF_ANOTHER_LENGTH = 0, 1, 2  # of probabilities: not stored, stored, and such as no version writes
# As `store.decisions` concatenates it in SQL: big-endian, without gaps.
RECORD = np.dtype([
    ("severity", ">i2"), ("categories", ">i2"), ("served_by", ">i2"), ("refusal", ">i2"), ("tokens", ">i4"), ("has_error", "u1"),
    ("has_p", "u1"), ("p", "u1", (3,)), ("has_by_category", "u1"), ("by_category", "u1", (N_CATEGORIES,)),
])  # fmt: skip
Metadata = Sequence[Mapping[str, Any] | None]
Lists = Sequence[Collection[str] | None]


class Seen(NamedTuple):
    """What rules read of a detection: its label or, without one, its outcome; and its scores by label, if it has any."""

    label: str
    scores: Mapping[str, float] | None


Detections = Sequence[Mapping[str, Seen]]  # by the detector's name, for each text
Mask = npt.NDArray[np.bool_]
Column = npt.NDArray[np.integer[Any]]
AT = {
    column: itemgetter(Codes._fields.index(name))
    for column, name in {
        "severity": "severity", "categories": "categories", "refusal": "refusal", "served_by": "served_by",
        "p": "probabilities", "has_p": "probabilities", "by_category": "category_odds",
    }.items()
}  # fmt: skip
UNKNOWN = {
    "severity": Severity.ERROR, "categories": 0, "served_by": ServedBy.NOBODY, "refusal": -1, "by_category": UNKNOWN_ODDS
}  # fmt: skip


def _numbers(stored: Iterable[int]) -> Column:
    return np.frombuffer(bytes(stored), np.uint8)


def _joined(parts: Sequence[bytes]) -> Column:
    return np.frombuffer(b"".join(parts), np.uint8).reshape(len(parts), -1)


MAKE: dict[str, Callable[[Any], Any]] = {
    "severity": lambda stored: np.fromiter(stored, np.int32),
    "served_by": _numbers,
    "categories": lambda stored: np.array(list(stored), np.int32),
    "refusal": lambda stored: np.array([-1 if one is None else one for one in stored], np.int32),
    "p": lambda stored: _joined([one or NO_PROBABILITIES for one in stored]),
    "has_p": lambda stored: np.array([one is not None for one in stored], bool),
    "by_category": lambda stored: _joined([one or NONE_KNOWN for one in stored]),
}


def lists_hit(evidence: Mapping[str, Any] | None) -> Collection[str] | None:
    """Return the names of the lists that a verdict's evidence says were hit; None: of none."""
    return None if evidence is None or "lists" not in evidence else {name_of(hit["list"]) for hit in evidence["lists"]}


class Facts(ABC):
    """Columns by name; a row of each is a text.

    `severity`, `served_by`: numbers of Severity and ServedBy; `categories`: bits; `refusal`: 1, 0, or -1 where it says nothing;
    `tokens` of the prompt; `p`, n x 3: safe, controversial, unsafe, where `has_p`; `by_category`, n x 10 in the order of
    CATEGORY_CHOICES, UNKNOWN_ODDS where it is not known. `metadata`, `lists` (the names of those that were hit), `detections`:
    None if no rule reads them.
    """

    def __init__(self, n: int, metadata: Metadata | None, lists: Lists | None, detections: Detections | None) -> None:
        self._n, self.metadata, self.lists, self.detections = n, metadata, lists, detections
        self._made: dict[str, Any] = {}

    def __len__(self) -> int:
        """Return the number of texts."""
        return self._n

    def __getitem__(self, name: str) -> Any:
        """Return a column."""
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def take(self, rows: Column) -> "Facts":
        """Return the facts of these texts."""
        if len(rows) == len(self):
            return self
        at = rows.tolist()
        return self._take(rows, _some(self.metadata, at), _some(self.lists, at), _some(self.detections, at))

    @abstractmethod
    def _make(self, name: str) -> Any: ...

    @abstractmethod
    def _take(self, rows: Column, metadata: Metadata | None, lists: Lists | None, detections: Detections | None) -> "Facts": ...


class CodeFacts(Facts):
    """Of verdicts that are about to be written, as `encode` made them: nothing in them is invalid."""

    def __init__(
        self,
        codes: Sequence[Codes],
        tokens: Sequence[int],
        metadata: Metadata | None = None,
        lists: Lists | None = None,
        detections: Detections | None = None,
    ) -> None:
        super().__init__(len(codes), metadata, lists, detections)
        self._codes, self._tokens = codes, tokens

    def _take(self, rows: Column, metadata: Metadata | None, lists: Lists | None, detections: Detections | None) -> Facts:
        at = rows.tolist()
        return CodeFacts([self._codes[i] for i in at], [self._tokens[i] for i in at], metadata, lists, detections)

    def _make(self, name: str) -> Any:
        return np.array(self._tokens, np.int32) if name == "tokens" else MAKE[name](map(AT[name], self._codes))


class RecordFacts(Facts):
    """Of stored verdicts, from RECORDs. A row whose codes make no verdict (`verdicts.encoding`) is an error, and nothing more."""

    def __init__(
        self,
        records: npt.NDArray[Any],
        metadata: Metadata | None = None,
        lists: Lists | None = None,
        detections: Detections | None = None,
    ) -> None:
        super().__init__(len(records), metadata, lists, detections)
        self._records, self._wrong = records, _wrong(records)

    @classmethod
    def of(
        cls, records: bytes, metadata: Metadata | None = None, lists: Lists | None = None, detections: Detections | None = None
    ) -> "RecordFacts":
        """Read RECORDs that follow each other without a gap."""
        return cls(np.frombuffer(records, RECORD), metadata, lists, detections)

    def _take(self, rows: Column, metadata: Metadata | None, lists: Lists | None, detections: Detections | None) -> Facts:
        return RecordFacts(self._records[rows], metadata, lists, detections)

    def _make(self, name: str) -> Any:
        if name == "has_p":
            return (self._records["has_p"] == SAID) & ~self._wrong
        stored = self._records[name]
        native = stored if stored.ndim > 1 else stored.astype(np.int32)
        if name in UNKNOWN and self._wrong.any():
            wrong = self._wrong[:, None] if stored.ndim > 1 else self._wrong
            return np.where(wrong, native.dtype.type(UNKNOWN[name]), native)
        return native


def _some(values: Sequence[T] | None, at: Sequence[int]) -> list[T] | None:
    return None if values is None else [values[i] for i in at]


def _wrong(r: npt.NDArray[Any]) -> Mask:
    """Return where `encoding.decode` finds an error that the row does not say."""
    severity, categories, served_by = r["severity"], r["categories"], r["served_by"]
    is_error = severity == Severity.ERROR
    return (  # type: ignore[no-any-return]
        (severity < Severity.UNRATED) | (severity > Severity.ERROR) | (categories < 0) | (categories > ALL_CATEGORIES)
        | (served_by < 0) | (served_by > max(ServedBy))
        | (r["has_p"] == OF_ANOTHER_LENGTH) | (r["has_by_category"] == OF_ANOTHER_LENGTH)
        | (is_error != r["has_error"].astype(bool))
        | (severity == Severity.SAFE) & (categories != 0)
        | (severity == Severity.UNRATED) & ((categories != 0) | (served_by != ServedBy.NOBODY))
        | (served_by == ServedBy.NOBODY) & ~is_error & (severity != Severity.UNRATED)
        | (served_by == ServedBy.RULE_EMPTY) & (severity != Severity.SAFE)
        | (served_by == ServedBy.LIST) & is_error
    )  # fmt: skip
