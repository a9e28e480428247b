"""Judgements as production makes them: an answer of the model, or a failure of the engine, through the real interpretation.

A test that needs a verdict takes it from here: no worker might ever write one that is made by hand.
"""

import random
import threading
from typing import Any

from guardfleet.domain.verdict import CATEGORY_CHOICES, ERROR_CODES, Judgement, failure, unrated
from guardfleet.lists.document import Entry
from guardfleet.lists.matching import Matcher
from worker.engine.interfaces import Answer, Unjudgeable
from worker.moderation.interpretation import EMPTY, Triage, judgement_of, reused, settle
from worker.moderation.judge import _shared
from worker.moderation.lookup import noted
from worker.moderation.single_flight import Scope

REFUSAL = "\nRefusal: "
Probabilities = tuple[float, float, float]


def answered(
    raw: str,
    probabilities: Probabilities | None = None,
    odds: tuple[float | None, ...] | None = None,
    *,
    input_tokens: int = 10,
    output_tokens: int = 8,
) -> Judgement:
    """The judgement of this answer."""
    return judgement_of(Answer(raw, probabilities, input_tokens, output_tokens, categories=odds, responds=REFUSAL in raw))


def failed(code: str, detail: str = "why") -> Judgement:
    """The judgement of a failure of the engine."""
    return judgement_of(Answer("", failure=Unjudgeable(code, detail)))


SAFE = answered("Safety: Safe\nCategories: None", (0.9, 0.08, 0.02))
UNSAFE = answered("Safety: Unsafe\nCategories: Violent", (0.0, 0.2, 0.8))
UNSURE = answered("Safety: Controversial\nCategories: None", (0.3, 0.5, 0.2))


LISTS = Matcher([
    ("spam@3", [Entry(value="cheap pills", id="pills", decide="unsafe", categories=("Non-violent Illegal Acts", "PII"))]),
    ("names@1", [Entry(value="acme"), Entry(kind="pattern", value="[0-9]{4}")]),
])  # fmt: skip
LISTED, MARKED = (hits for hits in LISTS.find(["Acme: CHEAP p1lls", [{"role": "user", "content": "Acme 1234"}]]) if hits)


def any_judgement(rng: random.Random) -> Judgement:
    """A random judgement that a worker could write, made by the same functions: of an answer or of none, its own or another's."""
    kind = rng.randrange(20)
    if kind in (0, 6):
        return LISTED.judgement() if kind else EMPTY
    if kind in (1, 8):
        return unrated() if kind == 8 else failure("abandoned", f"{rng.randrange(9)} crashes, {rng.randrange(9)} failures")
    mine = judgement_of(any_answer(rng))
    if kind == 7:
        return noted([mine], [MARKED])[0]
    if kind in (2, 3):
        return settle(Triage([0], {1: 0}, {}), {0: mine}, 2, reused)[1]  # the same text twice in a shard
    if kind in (4, 5):
        owner = Scope({}, threading.Lock(), job_id=1)
        owner.settle({"text": mine})
        found = _shared(owner, "text", rng.choice([1, 2]), reused)  # the same text in another shard, or another job
        assert found is not None
        return found
    return mine


def any_answer(rng: random.Random, *, of_window: bool = False, responds: bool | None = None) -> Answer:
    """A random answer of the engine: in the grammar or not, whole or in windows, or a failure."""
    responds = rng.random() < 0.3 if responds is None else responds
    kind = rng.randrange(12)
    tokens = {"input_tokens": rng.randrange(9000), "output_tokens": rng.randrange(128)}
    if kind == 0:
        return Answer("", failure=Unjudgeable(rng.choice(list(ERROR_CODES)), rng.choice(["9 tokens", "a\0b", "\ud800"])), **tokens)
    if kind == 1 and not of_window:
        ends = sorted(rng.sample(range(1, 9000), rng.randint(1, 4)))
        windows = tuple((max(0, end - 100), end, any_answer(rng, of_window=True, responds=responds)) for end in ends)
        notes = rng.choice([{}, {"left_out": [[20, 30], [40, 50]]}, {"turns_left_out": 3}, {"context_cut": 12}])
        return Answer("", windows=windows, notes=notes | _any_labels(rng), **tokens)
    odds = rng.choice([None, tuple(rng.choice([0.0, 1.0, None, rng.random(), rng.random() / 50]) for _ in CATEGORY_CHOICES)])
    raw, notes = any_raw(rng, responds), {} if of_window else _any_labels(rng)
    return Answer(raw, _any_probabilities(rng), categories=odds, responds=responds, notes=notes, **tokens)


def _any_labels(rng: random.Random) -> dict[str, Any]:
    return rng.choice([{}, {}, {"role_labels": 4}, {"role_labels": 1, "role_labels_neutralised": True}])


def any_raw(rng: random.Random, responds: bool) -> str:
    """A random raw answer: mostly in the grammar, exactly or nearly so."""
    if not rng.randrange(8):
        return rng.choice(
            ["", "hm", "Safety: Safe", "safety: safe\nCategories: None", "Safety: Safe\nCategories: Nonsense", "\0\ud800"]
        )
    label = rng.choice(["Safe", "Controversial", "Unsafe"])
    names = rng.sample(CATEGORY_CHOICES, rng.choice([0, 1, 1, 2, 5, 9])) or ["None"]
    if label == "Safe" and rng.randrange(4):  # otherwise it contradicts itself
        names = ["None"]
    if rng.randrange(3):
        names.sort(key=CATEGORY_CHOICES.index)
    answer = f"Safety: {label}\nCategories: {rng.choice([', ', ', ', ', ', ',']).join(names)}"
    if responds if rng.randrange(20) else rng.random() < 0.5:  # an answer for the other mode is no valid answer
        answer += REFUSAL + rng.choice(["Yes", "No"])
    return answer + rng.choice(["", "", "", "\n"])


def _any_probabilities(rng: random.Random) -> Probabilities | None:
    if not rng.randrange(5):
        return None
    one, other = sorted((rng.random() ** rng.choice([1, 8]), rng.random()))
    return rng.choice([(one, other - one, 1 - other), (1 - other, other - one, one), (1.0000001, 0.0, 0.0), (0.0, 0.0, 1.0)])
