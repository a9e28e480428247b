"""Policies that would allow what nobody judged are refused, rule by rule; those that a detector answers for are not."""

from typing import Any

import pytest

from guardfleet.policy.reading import PolicyError, of_value


def refused(when: dict[str, Any], **more: Any) -> list[str]:
    """What is wrong with a policy that allows under these conditions, and has everything else reviewed."""
    rules = [{"id": "a", "when": when, "action": "allow"}]
    try:
        of_value({"name": "x", "default": "review", "rules": rules, **more})
    except PolicyError as error:
        return [f"{one.where}: {one.cause}" for one in error.problems]
    return []


HUMAN = {"label": "human"}


@pytest.mark.parametrize(
    ("when", "whose"),
    [
        ({"severity": "error"}, "a text without a verdict"),
        ({"severity": "unrated"}, "a text that neither the guard nor a detector has judged"),
        ({"severity": ["safe", "unrated"]}, "a text that neither the guard nor a detector has judged"),
        ({"detectors": {"x": {"label": ["too_short"]}}}, "a text that neither the guard nor a detector has judged"),
        ({"detectors": {"x": {"label": ["human", "too_short"]}}}, "a text that neither the guard nor a detector has judged"),
        ({"detectors": {"x": {"label": ["error", "too_short"]}}}, "a text that x could not judge"),
        ({"severity": "safe", "detectors": {"x": {"label": "error"}}}, "a text that x could not judge"),
        ({"detectors": {"x": HUMAN, "y": {"label": ["error", "human"]}}}, "a text that y could not judge"),
        ({"severity": ["error", "safe"], "detectors": {"x": HUMAN}}, "a text without a verdict"),
    ],
    ids=repr,
)
def test_what_nobody_judged_is_allowed_only_where_that_is_said(when: dict[str, Any], whose: str) -> None:
    assert refused(when) == [f"rules[0].action: {whose} would be allowed: say `allow_errors: true` if that is meant"]
    assert refused(when, allow_errors=True) == []


@pytest.mark.parametrize(
    "when",
    [
        {"detectors": {"x": HUMAN}},
        {"severity": "unrated", "detectors": {"x": HUMAN}},
        {"severity": "unrated", "detectors": {"x": {"label": "unlabelled"}}},
        {"detectors": {"x": {"label": ["human", "too_short"], "scores": {"human": {"at_least": 0.9}}}}},
        {"severity": "safe", "detectors": {"x": {"label": "too_short"}}},
        {"detectors": {"x": {"label": "too_short"}, "y": {"scores": {"bad": {"below": 0.1}}}}},
    ],
    ids=repr,
)
def test_what_a_detector_or_the_guard_judged_may_be_allowed(when: dict[str, Any]) -> None:
    assert refused(when) == []
