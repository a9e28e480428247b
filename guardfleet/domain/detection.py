"""The detection: what a detector other than the guard says of one text, in labels with scores.

Standard library only: the engine runs on machines that have none of guardfleet's other dependencies.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from guardfleet.domain.verdict import ERROR_CODES, GUARD, Model, ServedBy

DETECTOR_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")  # of a detector, and of a policy for one
VERSION = r"@[1-9][0-9]{0,8}"
ENTRY = re.compile(
    rf"{DETECTOR_NAME.pattern}(/{DETECTOR_NAME.pattern}({VERSION})?)?"
)  # a detector, and the policy it is to judge by
ROUTE_PREFIX = "detector:"
MOST_LABEL = 200  # characters of a label
RULES = ("max", "mean", "share")  # how the windows of a long text become one detection
LEAST_FOUND = 0.5  # score from which a label that is found apart from others holds


class Outcome(IntEnum):
    """How a text ended with a detector; stored as its number. Every text has exactly one."""

    LABELLED = 0  # it has a label, maybe the neutral one
    UNLABELLED = 1  # of labels that are found apart, none was
    TOO_SHORT = 2  # too little text to say anything
    ERROR = 3  # no detection could be made

    @property
    def label(self) -> str:
        """The name in files, URLs and metrics: `labelled`, `unlabelled`, `too_short`, `error`."""
        return self.name.lower()


SAID = (Outcome.LABELLED, Outcome.UNLABELLED)


def folded(label: str) -> str:
    """Return a label as names are compared: casefolded, with `_` for spaces and hyphens."""
    return re.sub(r"[\s\-]+", "_", label.casefold())


def why_no_label(label: str) -> str | None:
    """Return why nothing may be called so, as the end of a sentence; None if it may. An outcome's name would be taken for it."""
    if len(label) > MOST_LABEL:
        return f"is longer than {MOST_LABEL} characters"
    if not label.isprintable():
        return "has characters that cannot be printed"
    if folded(label) in {outcome.label for outcome in Outcome}:
        return "is what guardfleet calls an outcome"
    return None


@dataclass(frozen=True, slots=True)
class Detection:
    """What a detector says of one text, before it is bound to a row.

    `label` is set exactly if the outcome is LABELLED, `error`, a key of ERROR_CODES, exactly if it is ERROR. `scores`: of each of
    `Model.labels`, 0 to 1, summing to 1 unless each is found apart; None if no model ran. `evidence`: the windows of a long text,
    and the share of the text that the model does not know (`unknown_tokens`), if it is large.
    `reason`: the model's own words on why, if it was asked for them; they may be wrong, and may quote the text.
    """

    outcome: Outcome
    label: str | None = None
    scores: tuple[float, ...] | None = None
    served_by: ServedBy = ServedBy.MODEL
    input_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None
    error_detail: str | None = None  # never holds the text
    evidence: Mapping[str, Any] | None = None
    reason: str | None = None

    @property
    def word(self) -> str:
        """What counts and rules call it: its label, or how else it ended."""
        return self.outcome.label if self.label is None else self.label


def failed(code: str, detail: str | None = None, *, served_by: ServedBy = ServedBy.NOBODY, **known: Any) -> Detection:
    """Return an error detection; `code` is a key of `ERROR_CODES`."""
    if code not in ERROR_CODES:
        raise KeyError(code)
    return Detection(Outcome.ERROR, served_by=served_by, error=code, error_detail=detail, **known)


def label_of(model: Model, scores: Sequence[float]) -> str | None:
    """Return the label with the highest score; None if each is found apart, and none reaches `LEAST_FOUND`."""
    score, label = max(zip(scores, model.labels, strict=True), key=lambda pair: pair[0])
    return label if model.neutral is not None or score >= LEAST_FOUND else None


def says(model: Model, found: Detection, label: str) -> bool | None:
    """Return whether the detection gives the text this label; None if nothing was said. Labels found apart may be several."""
    if found.outcome not in SAID:
        return None
    if model.neutral is None and found.scores is not None:
        return found.scores[model.labels.index(label)] >= LEAST_FOUND
    return found.label == label


def are_alike(one: Model, other: Model) -> bool:
    """Return whether two models answer in the same labels, in whatever order, and call the same one neutral."""
    return (sorted(one.labels), one.neutral) == (sorted(other.labels), other.neutral)


def combined(rule: str, model: Model, windows: Sequence[tuple[int, Sequence[float]]]) -> tuple[float, ...]:
    """Return one text's scores from those of its windows, each with its length in characters.

    `max`: the scores of the window that is least neutral; where each label is found apart, the highest of each. `mean`: weighted by
    length. `share`: of the length, which part has each label.
    """
    if rule not in RULES:
        raise ValueError(f"{rule!r} is none of {', '.join(RULES)}")
    if rule == "max":
        if model.neutral is None:
            return tuple(max(scores[i] for _, scores in windows) for i in range(len(model.labels)))
        at = model.labels.index(model.neutral)
        return tuple(min(windows, key=lambda window: window[1][at])[1])
    total = sum(n for n, _ in windows) or 1
    if rule == "mean":
        return tuple(sum(n * scores[i] for n, scores in windows) / total for i in range(len(model.labels)))
    said = [(n, label_of(model, scores)) for n, scores in windows]
    return tuple(sum(n for n, label in said if label == name) / total for name in model.labels)


def detector_of(entry: str) -> str:
    """Return the detector of an entry of a job's detectors: `custom` of `custom/no-refunds@2`."""
    return entry.partition("/")[0]


def policy_of(entry: str) -> str | None:
    """Return the policy of an entry, with its version if it has one: `no-refunds@2` of `custom/no-refunds@2`; None without one."""
    return entry.partition("/")[2] or None


def keys_of(entries: Sequence[str]) -> list[list[str]]:
    """Return by which keys rules read each entry: its own, and without a version the newest that the job asked for."""
    newest: dict[str, int] = {}
    for place, entry in enumerate(entries):
        name, _, version = entry.partition("@")
        if version and (name not in newest or int(version) > int(entries[newest[name]].partition("@")[2])):
            newest[name] = place
    keys = [[entry] for entry in entries]
    for name, place in newest.items():
        keys[place].append(name)
    return keys


def route_of(entry: str) -> str | None:
    """Return what a shard that waits for the entry's detector names as its model; None for the guard, which any model may be."""
    detector = detector_of(entry)
    return None if detector == GUARD else ROUTE_PREFIX + detector


def route_to(model: Model) -> str:
    """Return what a shard that waits for this very model, or for its detector, names."""
    return route_of(model.detector) or model.name


def is_detectors(route: str | None) -> bool:
    """Return whether a route is that of a detector."""
    return route is not None and route.startswith(ROUTE_PREFIX)
