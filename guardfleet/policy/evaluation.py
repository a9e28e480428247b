"""Which rule of a policy decides: for many verdicts at once, and why for one.

The first rule that fires decides. A rule that reads a number which a verdict does not have counts as firing if its action is graver
than what follows would be: what is not known never makes an action milder.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from guardfleet.domain.detection import Outcome
from guardfleet.domain.verdict import CATEGORY_CHOICES, NO_VERDICT, ServedBy, Severity, categories_of
from guardfleet.policy.document import JUDGED, LANGUAGE_KEYS, Action, Bounds, Detected, Policy, When
from guardfleet.policy.facts import Facts, Mask, Seen
from guardfleet.verdicts.detections import SHOWN_DIGITS as SCORE_DIGITS
from guardfleet.verdicts.encoding import CERTAIN, CERTAIN_ODDS, UNKNOWN_ODDS
from guardfleet.verdicts.rendering import SHOWN_DIGITS

DEFAULT, ERRORS = 250, 251  # outcomes that are no rule; those below are the number of a rule
Outcomes = npt.NDArray[np.uint8]
Test = Callable[[Facts], tuple[Mask, Mask | None]]  # where it holds, and where it is not known (None: nowhere)
ERROR = Outcome.ERROR.label
EPSILON = 1e-9  # a bound that is written with three digits is met by the number that is shown with the same


class Decider:
    """A policy, ready to decide."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.reads_metadata = any(rule.when.metadata or rule.when.language is not None for rule in policy.rules)
        self.reads_lists = any(rule.when.lists is not None for rule in policy.rules)
        self.reads_detections = any(rule.when.detectors for rule in policy.rules)
        self.actions = np.zeros(256, np.uint8)
        self.actions[DEFAULT], self.actions[ERRORS] = Action[policy.default.upper()], Action[policy.errors.upper()]
        for at, rule in enumerate(policy.rules):
            self.actions[at] = Action[rule.action.upper()]
        self._rules = {
            severity: [(at, _tests(rule.when)) for at, rule in enumerate(policy.rules) if severity in rule.when.severities]
            for severity in Severity
        }

    def outcomes(self, facts: Facts) -> Outcomes:
        """Return the outcome of each text: the number of the rule that decided, DEFAULT or ERRORS."""
        severity = facts["severity"]
        found = np.full(len(facts), DEFAULT, np.uint8)
        for one, n in enumerate(np.bincount(severity - Severity.UNRATED).tolist(), Severity.UNRATED):
            if n and one in NO_VERDICT:
                found[severity == one] = ERRORS
            if n and self._rules[Severity(one)]:
                rows = np.flatnonzero(severity == one)
                found[rows] = self._decided(self._rules[Severity(one)], facts.take(rows), found[rows])
        return found

    def _decided(self, rules: list[tuple[int, list[Test]]], facts: Facts, found: Outcomes) -> Outcomes:
        """Return the outcomes of texts of one severity, by the rules that name it."""
        for at, tests in reversed(rules):
            holds, unknown = _all_hold(tests, facts)
            if unknown is not None:
                holds = holds | unknown & (self.actions[at] > self.actions[found])
            found[holds] = at
        return found


def _all_hold(tests: list[Test], facts: Facts) -> tuple[Mask, Mask | None]:
    """Return where all of the tests hold, and where that is not known."""
    holds = np.ones(len(facts), bool)
    unknown: Mask | None = None
    for test in tests:
        here, is_open = test(facts)
        if unknown is not None or is_open is not None:
            possible = (here if is_open is None else here | is_open) & (holds if unknown is None else holds | unknown)
            holds = holds & here
            unknown = possible & ~holds
        else:
            holds &= here
    return holds, unknown


def _tests(when: When) -> list[Test]:
    return list(_each(when))


def _each(when: When) -> Iterable[Test]:
    if when.category is not None:
        yield _category(int(categories_of(when.category)))
    for name, bounds in when.probability.items():
        yield _probability(name, bounds)
    if when.refusal is not None:
        yield _refusal(int(when.refusal))
    if when.served_by is not None:
        yield _among("served_by", [int(one) for one in ServedBy if one.label in when.served_by])
    if when.tokens is not None:
        yield _tokens(when.tokens.at_least, when.tokens.at_most)
    if when.language is not None:
        yield _metadata(LANGUAGE_KEYS, when.language)
    for key, values in when.metadata.items():
        yield _metadata((key,), values)
    if when.lists is not None:
        yield _lists(frozenset(when.lists))
    for name, wanted in when.detectors.items():
        yield _detector(name, wanted)


def _among(column: str, codes: list[int]) -> Test:
    table = np.zeros(len(ServedBy), bool)
    table[codes] = True

    def test(facts: Facts) -> tuple[Mask, Mask | None]:
        return table[facts[column]], None

    return test


def _category(bits: int) -> Test:
    def test(facts: Facts) -> tuple[Mask, Mask | None]:
        return (facts["categories"] & bits) != 0, None

    return test


def _refusal(wanted: int) -> Test:
    def test(facts: Facts) -> tuple[Mask, Mask | None]:
        return facts["refusal"] == wanted, None

    return test


def _tokens(at_least: int, at_most: int | None) -> Test:
    def test(facts: Facts) -> tuple[Mask, Mask | None]:
        holds = facts["tokens"] >= at_least
        return (holds if at_most is None else holds & (facts["tokens"] <= at_most)), None

    return test


def _probability(name: str, bounds: Bounds) -> Test:
    if name in JUDGED or name == "not_safe":
        columns = [JUDGED.index(name)] if name in JUDGED else [1, 2]
        least, below = _bytes(bounds, CERTAIN)

        def of_severity(facts: Facts) -> tuple[Mask, Mask | None]:
            value = facts["p"][:, columns[0]] if len(columns) == 1 else facts["p"][:, 1].astype(np.int16) + facts["p"][:, 2]
            holds = value >= least
            if below is not None:
                holds &= value < below
            return holds & facts["has_p"], ~facts["has_p"]

        return of_severity
    column = CATEGORY_CHOICES.index(name)
    least, below = _bytes(bounds, CERTAIN_ODDS)

    def of_category(facts: Facts) -> tuple[Mask, Mask | None]:
        value = facts["by_category"][:, column]
        unknown = value == UNKNOWN_ODDS
        holds = (value >= least) & ~unknown
        if below is not None:
            holds &= value < below
        return holds, unknown

    return of_category


def _bytes(bounds: Bounds, certain: int) -> tuple[int, int | None]:
    """Return the bounds as stored: the least number of steps of 1/`certain` whose value, as shown, is inside, and that is above."""
    return _least(bounds.at_least, certain), None if bounds.below is None else _least(bounds.below, certain)


def _least(bound: float, certain: int) -> int:
    return next((steps for steps in range(certain + 1) if round(steps / certain, SHOWN_DIGITS) >= bound - EPSILON), certain + 1)


def _lists(names: frozenset[str]) -> Test:
    def test(facts: Facts) -> tuple[Mask, Mask | None]:
        rows = facts.lists if facts.lists is not None else [None] * len(facts)
        return np.fromiter((row is not None and not names.isdisjoint(row) for row in rows), bool, len(facts)), None

    return test


def _detector(name: str, wanted: Detected) -> Test:
    """Hold where the detector's label is one of these, and its scores are within the bounds.

    Not known where it could not say. Where the job did not ask it, it is known that it says none of this.
    """

    def test(facts: Facts) -> tuple[Mask, Mask | None]:
        seen = [row.get(name) for row in facts.detections] if facts.detections is not None else [None] * len(facts)
        holds = np.fromiter((one is not None and _holds(wanted, one) for one in seen), bool, len(facts))
        is_error = np.fromiter((one is not None and one.label == ERROR for one in seen), bool, len(facts))
        return holds, is_error & ~holds

    return test


def _holds(wanted: Detected, seen: Seen) -> bool:
    if wanted.label is not None and seen.label not in wanted.label:
        return False
    scores = seen.scores or {}
    return all(
        label in scores and bounds.at_least - EPSILON <= round(scores[label], SCORE_DIGITS) < (bounds.below or math.inf)
        for label, bounds in wanted.scores.items()
    )


def _metadata(keys: tuple[str, ...], values: Iterable[Any]) -> Test:
    """Hold where one of the keys has one of the values; a number is no text and `true` is no number."""
    wanted = {
        (type(value) is bool, value if isinstance(value, bool | int | float) else str(value), value is None) for value in values
    }

    def test(facts: Facts) -> tuple[Mask, Mask | None]:
        rows = facts.metadata if facts.metadata is not None else [None] * len(facts)
        return np.fromiter((_has(row, keys, wanted) for row in rows), bool, len(facts)), None

    return test


def _has(row: Any, keys: tuple[str, ...], wanted: set[Any]) -> bool:
    if row is None:
        return False
    for key in keys:
        if key in row:
            value = row[key]
            return (type(value) is bool, value if isinstance(value, bool | int | float) else str(value), value is None) in wanted
    return False
