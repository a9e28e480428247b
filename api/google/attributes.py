"""Perspective's attributes, as far as the guard's categories and a tenant's own lists can answer them.

The guard does not tell insults, attacks on identity and other unethical speech apart: INSULT and IDENTITY_ATTACK are both its
Unethical Acts. It has nothing for PROFANITY and others: where the tenant has an active list of that name (`profanity`), its hits
answer with 1 or 0; otherwise they are left out and reported, never invented.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from api.openai.categories import not_safe, score
from guardfleet.domain.score_map import ScoreMap
from guardfleet.domain.verdict import CATEGORY_NAMES, Category, Judgement, Severity
from guardfleet.domain.versions import name_of
from guardfleet.verdicts.encoding import StoredVerdict

ATTRIBUTES = {
    "TOXICITY": Category.UNETHICAL | Category.VIOLENT | Category.SEXUAL,
    "SEVERE_TOXICITY": Category.UNETHICAL | Category.VIOLENT | Category.SEXUAL,
    "IDENTITY_ATTACK": Category.UNETHICAL,
    "INSULT": Category.UNETHICAL,
    "THREAT": Category.VIOLENT,
    "SEXUALLY_EXPLICIT": Category.SEXUAL,
}
EXPERIMENTAL = "_EXPERIMENTAL"  # at the end of a name: the attribute in a language that it was new for
NAME_CHARS = 50
PLAIN_NAME = re.compile(rf"[A-Z_]{{1,{NAME_CHARS}}}")  # other names are in the body only: a header cannot hold other characters
LEAST_SCORES = ((2 / 3, Severity.UNSAFE), (1 / 3, Severity.CONTROVERSIAL))
TYPE = "PROBABILITY"
LIST = "list "


def base_of(name: str) -> str:
    """Return the attribute without the mark of an experiment."""
    return name.removesuffix(EXPERIMENTAL)


def list_of(name: str) -> str | None:
    """Return the name of the list that would answer an attribute; None for the guard's own and for what no list can be called."""
    return base_of(name).lower() if PLAIN_NAME.fullmatch(name) and base_of(name) not in ATTRIBUTES else None


def answered_by(names: Iterable[str], lists: Iterable[str]) -> dict[str, str]:
    """Return what answers each attribute that can be answered: one of the guard's, or `list NAME` for one of these active lists."""
    active, found = set(lists), {}
    for name in names:
        if base_of(name) in ATTRIBUTES and PLAIN_NAME.fullmatch(name):
            found[name] = base_of(name)
        elif list_of(name) in active:
            found[name] = f"{LIST}{list_of(name)}"
    return found


def is_list(answer: str) -> bool:
    """Return whether an answer of `answered_by` is a list's."""
    return answer.startswith(LIST)


def scores(row: StoredVerdict, answer: str, length: int, maps: Mapping[str, ScoreMap] | None = None) -> dict[str, Any]:
    """Return the scores of an attribute from what answers it; `length`: of the text, in characters. `maps`: for the guard's."""
    if is_list(answer):
        return _of_list(row, answer.removeprefix(LIST), length)
    return _of_guard(row, answer, length, (maps or {}).get(answer))


def value_of(said: Judgement, name: str) -> float:
    """Return the guard's score of one of ATTRIBUTES: its highest category; for SEVERE_TOXICITY, the part of it that is unsafe."""
    value = max(score(said, category) for category in ATTRIBUTES[name])
    if name == "SEVERE_TOXICITY" and said.probabilities is not None:
        doubt = not_safe(said)
        value = round(value * said.probabilities[2] / doubt, 3) if doubt else 0.0
    return min(1.0, value)


def _of_guard(row: StoredVerdict, name: str, length: int, mapped: ScoreMap | None) -> dict[str, Any]:
    value = value_of(row.judgement, name)
    begin, end = (row.evidence or {}).get("decided") or (0, length)
    return _scores(value if mapped is None else round(mapped(value), 6), begin, end)


def _of_list(row: StoredVerdict, name: str, length: int) -> dict[str, Any]:
    """Return 1 with the place of the first hit of the list, or 0. A verdict names a hit of each list that the text holds."""
    hits = (row.evidence or {}).get("lists", ())
    hit = next((hit for hit in hits if name_of(hit["list"]) == name), None)
    return _scores(0.0, 0, length) if hit is None else _scores(1.0, hit["start"], hit["end"])


def suggested(scores: Mapping[str, float]) -> tuple[Severity, Category]:
    """Return the label that suggested scores stand for; categories only of attributes that are about one."""
    highest = max(scores.values())
    severity = next((severity for least, severity in LEAST_SCORES if highest >= least), Severity.SAFE)
    categories = Category.NONE
    for name, value in scores.items():
        if value >= LEAST_SCORES[-1][0] and ATTRIBUTES[name] in CATEGORY_NAMES:
            categories |= ATTRIBUTES[name]
    return severity, categories if severity is not Severity.SAFE else Category.NONE


def _scores(value: float, begin: int, end: int) -> dict[str, Any]:
    found = {"value": value, "type": TYPE}
    return {"spanScores": [{"begin": begin, "end": end, "score": found}], "summaryScore": found}
