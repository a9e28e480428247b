"""Verdicts in the terms of OpenAI's moderations.

Qwen3Guard has nine categories, OpenAI thirteen, and they do not match one to one. What the model says is given under the name that
is nearest; what it has no category for is `false`, 0.0 and applied to no input, never guessed:

- `violence`, `illicit`, `sexual`, `self-harm`: Violent, Non-violent Illegal Acts, Sexual Content, Suicide & Self-Harm.
- `harassment` and `hate`: Unethical Acts, which the model does not tell apart (bias, hate speech, insults, threats, defamation).
- the sub-categories (`harassment/threatening`, `sexual/minors`, ...): none. PII, politics, copyright and jailbreaks have no name
  there. They are in the member `guardfleet` of each result.

A score is the probability that the text is not safe, for a category that the model named; for the others, that times the
probability with which the model would have named it first.
"""

import functools
from collections.abc import Mapping
from typing import Any

import orjson

from guardfleet.rendering import UNKNOWN_ODDS, Opinion, StoredVerdict, opinion_object
from guardfleet.verdict import CATEGORY_NAMES, Category, Model, Severity

COVERED: Mapping[str, Category] = {
    "harassment": Category.UNETHICAL,
    "hate": Category.UNETHICAL,
    "illicit": Category.ILLEGAL,
    "self-harm": Category.SELF_HARM,
    "sexual": Category.SEXUAL,
    "violence": Category.VIOLENT,
}
CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
APPLIED = {name: ["text"] if name in COVERED else [] for name in CATEGORIES}
PLACE = {category: place for place, category in enumerate(CATEGORY_NAMES, 1)}  # in the odds, whose first are of no category
KNOWN = 65_536


def result_json(row: StoredVerdict, model: Model, *, flag_from: Severity = Severity.UNSAFE) -> bytes:
    """One of `results` of a moderation, as JSON."""
    if row.evidence is None:
        return _known(row[3:12], model, flag_from)
    return orjson.dumps(_result(row.opinion, model, flag_from, row.evidence))


@functools.lru_cache(KNOWN)
def _known(opinion: tuple[Any, ...], model: Model, flag_from: Severity) -> bytes:
    return orjson.dumps(_result(Opinion._make(opinion), model, flag_from, None))


def _result(opinion: Opinion, model: Model, flag_from: Severity, evidence: Mapping[str, Any] | None) -> dict[str, Any]:
    is_flagged = flag_from <= opinion.severity < Severity.ERROR
    named = Category(opinion.categories)
    return {
        "flagged": is_flagged,
        "categories": {name: is_flagged and name in COVERED and bool(named & COVERED[name]) for name in CATEGORIES},
        "category_scores": {name: score(opinion, COVERED[name]) if name in COVERED else 0.0 for name in CATEGORIES},
        "category_applied_input_types": APPLIED,
        "guardfleet": opinion_object(opinion, model, evidence),
    }


def score(opinion: Opinion, category: Category) -> float:
    """How likely the text is one of the category, 0 to 1."""
    if opinion.probabilities is None:
        return float(opinion.severity in (Severity.CONTROVERSIAL, Severity.UNSAFE) and bool(opinion.categories & category))
    not_safe = 1 - opinion.probabilities[0] / 255
    if opinion.categories & category:
        return round(not_safe, 3)
    odds = opinion.category_odds[PLACE[category]] if opinion.category_odds else 0
    return round(not_safe * odds / 254, 3) if odds != UNKNOWN_ODDS else 0.0
