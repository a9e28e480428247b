"""Verdicts in the terms of OpenAI's moderations.

Qwen3Guard has nine categories and OpenAI thirteen, which do not match one to one. Each category of the model is reported under the
nearest name. OpenAI's categories that the model lacks are `false`, score 0.0 and apply to no input; they are never guessed:

- `violence`, `illicit`, `sexual`, `self-harm`: Violent, Non-violent Illegal Acts, Sexual Content, Suicide & Self-Harm.
- `harassment` and `hate`: Unethical Acts, which the model does not tell apart (bias, hate speech, insults, threats, defamation).
- the sub-categories (`harassment/threatening`, `sexual/minors`, ...): none.
- `pii`, `political`, `copyright`, `jailbreak`: the model's categories without an OpenAI name, under names of our own.

A score ranks; it is not a calibrated probability (see `scores`). A text without a verdict is flagged, all its scores are 1, and
they apply to no input.
"""

import functools
from collections.abc import Mapping
from typing import Any

import orjson

from guardfleet.domain.decision import Decision
from guardfleet.domain.verdict import CATEGORY_NAMES, NO_VERDICT, Category, Judgement, Model, Severity, category_names
from guardfleet.verdicts.encoding import StoredVerdict, decode
from guardfleet.verdicts.rendering import decision_json, said_object

COVERED: Mapping[str, Category] = {
    "harassment": Category.UNETHICAL,
    "hate": Category.UNETHICAL,
    "illicit": Category.ILLEGAL,
    "self-harm": Category.SELF_HARM,
    "sexual": Category.SEXUAL,
    "violence": Category.VIOLENT,
    "pii": Category.PII,
    "political": Category.POLITICAL,
    "copyright": Category.COPYRIGHT,
    "jailbreak": Category.JAILBREAK,
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
    "pii",
    "political",
    "copyright",
    "jailbreak",
)
APPLIED = {name: ["text"] if name in COVERED else [] for name in CATEGORIES}
APPLIED_TO_NONE: Mapping[str, list[str]] = {name: [] for name in CATEGORIES}
KNOWN = 65_536


def result_json(
    row: StoredVerdict, model: Model, decision: Decision | None = None, *, flag_from: Severity = Severity.UNSAFE
) -> bytes:
    """Return one of a moderation's `results`, as JSON; its `guardfleet` has the decision if a policy decided."""
    if row.evidence is None:
        said = _known(row.codes, model, flag_from)
    else:
        said = orjson.dumps(result(row.judgement, model, flag_from, row.evidence))
    if decision is None:
        return said
    return b'%b,"decision":%b}}' % (said[:-2], decision_json(decision))


@functools.lru_cache(KNOWN)
def _known(codes: tuple[Any, ...], model: Model, flag_from: Severity) -> bytes:
    return orjson.dumps(result(decode(codes), model, flag_from, None))


def result(said: Judgement, model: Model, flag_from: Severity, evidence: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return one of a moderation's `results`. A text without a verdict is always flagged."""
    is_error = said.severity in NO_VERDICT
    is_flagged = is_error or said.severity >= flag_from
    named, ranked = set(category_names(said.categories)) if is_flagged else set(), scores(said)
    return {
        "flagged": is_flagged,
        "categories": {name: name in COVERED and CATEGORY_NAMES[COVERED[name]] in named for name in CATEGORIES},
        "category_scores": {name: ranked[COVERED[name]] if name in COVERED else 0.0 for name in CATEGORIES},
        "category_applied_input_types": APPLIED_TO_NONE if is_error else APPLIED,
        "guardfleet": said_object(said, model, evidence),
    }


def score(said: Judgement, category: Category) -> float:
    """Return how high the text ranks in the category, 0 to 1."""
    return scores(said)[category]


def scores(said: Judgement) -> dict[Category, float]:
    """Return how high the text ranks in each category, 0 to 1; the highest of the nine is always P(not safe).

    A category that the model named scores P(not safe). Any other scores in proportion to its probability of being named first,
    given the answer `Unsafe`, divided by the highest of the nine. If these probabilities are unknown, nothing says how to divide
    P(not safe), so each category scores all of it.
    """
    doubt = not_safe(said)
    by_category = [p or 0.0 for p in said.category_odds[1:]] if said.category_odds else [0.0] * len(CATEGORY_NAMES)
    most = max(by_category)
    shares = [p / most for p in by_category] if most else [0.0 if said.categories else 1.0] * len(CATEGORY_NAMES)
    named = category_names(said.categories)
    return {
        category: round(doubt if name in named else doubt * share, 3)
        for (category, name), share in zip(CATEGORY_NAMES.items(), shares, strict=True)
    }


def not_safe(said: Judgement) -> float:
    """Return P(not safe); without usable probabilities, 0 or 1 by the severity alone."""
    if said.severity in NO_VERDICT or said.probabilities is None:
        return float(said.severity is not Severity.SAFE)
    return 1 - said.probabilities[0]
