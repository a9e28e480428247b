"""The labels of rows, as a detector's own: names of its labels, or true and false of one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from guardfleet.cli.labelled_rows import UNKNOWN, UNLABELLED
from guardfleet.domain.verdict import Model
from guardfleet.errors import RejectedError

BOOLEANS = {"true": True, "false": False}  # as CSV spells them


@dataclass(frozen=True)
class Asked:
    """What is asked of a detector: where labels stand, which one is positive, and the false-positive rates to keep to.

    `negatives`: no text has the positive label, and none needs one. `by`: further members of rows to slice the texts by.
    """

    label_field: str = "label"
    positive: str | None = None
    rates: tuple[float, ...] = ()
    negatives: bool = False
    by: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, label_field: str | None, positive: str | None, rates: Sequence[float], *, negatives: bool, by: Sequence[str]
    ) -> "Asked":
        """Check it. Raises RejectedError."""
        if bad := [rate for rate in rates if not 0 < rate < 1]:
            raise RejectedError(f"--fpr {bad[0]:g} is no rate between 0 and 1: 0.01 is one in a hundred.")
        if negatives and not rates:
            raise RejectedError("--negatives gives thresholds alone: say with --fpr for which false-positive rate.")
        if negatives and label_field:
            raise RejectedError("--negatives takes no labels: leave --label-field out.")
        return cls(label_field or "label", positive, tuple(dict.fromkeys(rates)), negatives, tuple(dict.fromkeys(by)))


class LabelReader:
    """Reads labels at one place of each row. `positive`: which label `true` is. `took_booleans`: whether a row had one.

    Raises RejectedError for a positive label that the detector does not have.
    """

    def __init__(self, model: Model, field: str, positive: str | None) -> None:
        self._model, self._field = model, field
        self._names = {label.casefold(): label for label in model.labels}
        self.positive = self._positive(positive)
        self.took_booleans = False

    @property
    def known(self) -> str:
        """Which labels a row may have, in words."""
        return ", ".join([*self._model.labels, *BOOLEANS])

    @property
    def judged(self) -> tuple[str, ...]:
        """The labels of which every row says whether it has them: of three or more, true and false speak of one."""
        if self.took_booleans and self.positive and len(self._model.labels) > 2:  # noqa: PLR2004 - of two, one is not the other
            return (self.positive,)
        return self._model.labels

    def needed_positive(self, why: str) -> str:
        """Return the positive label. Raises RejectedError if there are several that could be."""
        if self.positive is None:
            raise RejectedError(f"{why}: say with --positive of which label of {', '.join(self._model.labels)}.")
        return self.positive

    def __call__(self, row: Mapping[str, Any]) -> frozenset[str] | str:
        """Return the labels that a row has, or UNLABELLED or UNKNOWN."""
        given = member_of(row, self._field)
        if isinstance(given, str):
            given = BOOLEANS.get(given.casefold(), given)
        if isinstance(given, bool):
            self.took_booleans = True
            positive = self.needed_positive("labels are true and false")
            return frozenset([positive]) if given else self.nothing
        if given is None or given == "":
            return UNLABELLED
        names = [self._names.get(one.casefold()) if isinstance(one, str) else None for one in _listed(given)]
        return UNKNOWN if None in names else frozenset(name for name in names if name)

    @property
    def nothing(self) -> frozenset[str]:
        """The labels of a text in which nothing is to be found."""
        return frozenset([self._model.neutral]) if self._model.neutral else frozenset()

    def _positive(self, asked: str | None) -> str | None:
        if asked is None:
            found = [label for label in self._model.labels if label != self._model.neutral]
            return found[0] if len(found) == 1 else None
        if asked.casefold() not in self._names:
            raise RejectedError(f"--positive {asked!r} is none of the detector's labels: {', '.join(self._model.labels)}.")
        return self._names[asked.casefold()]


def member_of(row: Mapping[str, Any], path: str) -> Any:
    """Return a row's member of this name, or, with dots, of the objects in it; None if there is none."""
    if path in row:
        return row[path]
    value: Any = row
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]
