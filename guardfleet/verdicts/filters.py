"""Which of a job's verdicts a reader asks for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from guardfleet.domain.decision import ACTIONS
from guardfleet.domain.verdict import CATEGORY_NAMES, Category, Severity
from guardfleet.errors import RejectedError

T = TypeVar("T")
SEVERITIES: Mapping[str, Severity] = MappingProxyType({severity.label: severity for severity in Severity})
STATUSES: Mapping[str, Sequence[str]] = MappingProxyType(
    {"completed": ("safe", "controversial", "unsafe", "unrated"), "failed": ("error",)}
)
CATEGORIES: Mapping[str, Category] = MappingProxyType({name: category for category, name in CATEGORY_NAMES.items()})


@dataclass(frozen=True, slots=True)
class Labelled:
    """The texts to which a detector gave one of these labels, or with which it ended so: in the words that counts and rules use."""

    detector: str
    labels: Sequence[str]

    @classmethod
    def of(cls, detector: str | None, label: Iterable[str] | None) -> "Labelled | None":
        """Make it from names; None if nothing is asked for. Raises RejectedError for the one without the other."""
        labels = list(label or ())
        if not detector and not labels:
            return None
        if not detector:
            raise RejectedError("label is one of a detector's: name it by detector.", param="detector")
        if not labels:
            raise RejectedError(f"detector {detector} gives each text a label: name those to return by label.", param="label")
        return cls(detector, labels)


@dataclass(frozen=True, slots=True)
class Filter:
    """The verdicts to return: of these severities, in any of these categories (0: all), since this time (Unix seconds).

    `actions`: only those for which the policy in force says one of these. `labelled`: only what a detector has said this of.
    """

    severities: Sequence[int]
    categories: int = 0
    since: float = 0.0
    actions: Sequence[str] | None = None
    labelled: Labelled | None = None

    @classmethod
    def of(
        cls,
        severity: Iterable[str] | None = None,
        category: str | None = None,
        status: str | None = None,
        since: float | None = None,
        action: Iterable[str] | None = None,
        labelled: Labelled | None = None,
    ) -> "Filter | None":
        """Make a filter from names; None if nothing is asked for. Raises RejectedError for an unknown name."""
        if severity is None and status is not None:
            severity = known_name(status, STATUSES, "status")
        actions = actions_of(action or ()) or None
        if severity is None and category is None and since is None and actions is None and labelled is None:
            return None
        wanted = [int(known_name(name, SEVERITIES, "severity")) for name in severity or SEVERITIES]
        categories = int(known_name(category, CATEGORIES, "category")) if category else int(Category.NONE)
        return cls(wanted, categories, since or 0.0, actions, labelled)


def actions_of(names: Iterable[str]) -> Sequence[str]:
    """Return the actions. Raises RejectedError for a word that is none."""
    known: Mapping[str, str] = {name: name for name in ACTIONS}
    return [known_name(name, known, "action") for name in names]


def known_name(name: str, there: Mapping[str, T], what: str) -> T:
    """Return what a name stands for. Raises RejectedError that lists the names."""
    if name not in there:
        raise RejectedError(f"{what} must be one of: {', '.join(there)}.", param=what)
    return there[name]
