"""Policies against a second evaluator that reads one verdict at a time: the same rule for any policy and verdict."""

import json
import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfleet.domain.verdict import CATEGORY_CHOICES, CATEGORY_NAMES, NO_VERDICT, Judgement, Severity, category_names
from guardfleet.policy.document import NUMBERS, Action, Detected, Policy, When
from guardfleet.policy.evaluation import DEFAULT, ERRORS, Decider
from guardfleet.policy.facts import RECORD, CodeFacts, Facts, RecordFacts, Seen
from guardfleet.policy.reading import MOST_PROBLEMS, PolicyError, of_value, read
from guardfleet.verdicts.encoding import Codes, decode, encode
from tests.services.judged import answered, any_judgement

ACTIONS = ["allow", "flag", "review", "block"]
LANGUAGES = ["en", "no", "zh", 7, True, None]
LISTS = ["spam", "names", "odd"]
DETECTORS = ["ai-text", "toxic"]
LABELS = ["human", "generated"]
ENDS = [*LABELS, "too_short", "error"]
EDGE = 1e-9


def holds(
    when: When,
    said: Judgement,
    tokens: int,
    metadata: dict[str, Any] | None,
    hit: set[str] | None = None,
    seen: dict[str, Seen] | None = None,
) -> bool | None:
    """Whether all conditions hold; None if that depends on a number that the verdict does not have."""
    values = dict(zip(("safe", "controversial", "unsafe"), said.probabilities or (None,) * 3, strict=True))
    values["not_safe"] = None if said.probabilities is None else said.probabilities[1] + said.probabilities[2]
    values |= dict(zip(CATEGORY_CHOICES, said.category_odds or (None,) * len(CATEGORY_CHOICES), strict=True))
    found: list[bool | None] = [
        said.severity in when.severities,
        when.category is None or bool(set(when.category) & set(category_names(said.categories))),
        when.refusal is None or said.refusal is when.refusal,
        when.served_by is None or said.served_by.label in when.served_by,
        when.tokens is None or when.tokens.at_least <= tokens <= (when.tokens.at_most or 10**9),
    ]
    if when.lists is not None:
        found.append(any(name in when.lists for name in hit or ()))
    for name, wanted in when.detectors.items():
        found.append(detected(wanted, (seen or {}).get(name)))
    for name, bounds in when.probability.items():
        p = values[name]
        below = 9.0 if bounds.below is None else bounds.below
        shown = None if p is None else round(p, 3)
        found.append(None if shown is None else shown >= bounds.at_least - EDGE and shown < below - EDGE)
    asked = [(("lang", "language"), when.language)] if when.language else []
    for keys, wanted in [*asked, *(((key,), values) for key, values in when.metadata.items())]:
        has = next((metadata[key] for key in keys if metadata and key in metadata), found)
        found.append(has is not found and any(type(has) is type(one) and has == one for one in wanted))
    return False if False in found else None if None in found else True


def detected(wanted: Detected, seen: Seen | None) -> bool | None:
    """Whether a detector says what is wanted; None if it could not say, False if nobody asked it."""
    if seen is None:
        return False
    if seen.label == "error" and "error" not in (wanted.label or ()):
        return None
    if wanted.label is not None and seen.label not in wanted.label:
        return False
    if wanted.scores and seen.label == "error":
        return None
    for label, bounds in wanted.scores.items():
        score = None if seen.scores is None else seen.scores.get(label)
        if score is None or not bounds.at_least - EDGE <= round(score, 6) < (1e9 if bounds.below is None else bounds.below):
            return False
    return True


def decided(
    policy: Policy,
    said: Judgement,
    tokens: int,
    metadata: dict[str, Any] | None,
    hit: set[str] | None = None,
    seen: dict[str, Seen] | None = None,
) -> int:
    """The outcome, from the last rule to the first."""
    actions = [Action[rule.action.upper()] for rule in policy.rules]
    outcome = ERRORS if said.severity in NO_VERDICT else DEFAULT
    action = Action[(policy.errors if outcome == ERRORS else policy.default).upper()]
    for at in range(len(actions) - 1, -1, -1):
        fires = holds(policy.rules[at].when, said, tokens, metadata, hit, seen)
        if fires or (fires is None and actions[at] > action):
            outcome, action = at, actions[at]
    return outcome


def any_when(rng: random.Random) -> dict[str, Any]:  # noqa: C901 - a line for each condition
    made: dict[str, Any] = {}
    if rng.random() < 0.5:
        made["severity"] = rng.sample(["safe", "controversial", "unsafe", "error", "unrated"], rng.randint(1, 3))
    if rng.random() < 0.3:
        made["category"] = rng.sample([*CATEGORY_NAMES.values()], rng.randint(1, 4))
    for name in rng.sample(NUMBERS, rng.choice([0, 0, 1, 2])):
        least = rng.choice([0.0, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
        bounds = ({"at_least": least} if least else {}) | (
            {"below": min(1.0, least + 0.3)} if not least or (least < 1 and rng.random() < 0.4) else {}
        )
        made.setdefault("probability", {})[name] = bounds
    if rng.random() < 0.1:
        made["refusal"] = rng.random() < 0.5
    if rng.random() < 0.1:
        made["served_by"] = rng.sample(["model", "cache", "duplicate", "rule:empty", "nobody", "list"], 2)
    if rng.random() < 0.1:
        made["tokens"] = {"at_least": rng.randint(0, 20), "at_most": rng.randint(20, 60)}
    if rng.random() < 0.2:
        made["language"] = rng.sample(["en", "no", "zh"], rng.randint(1, 2))
    if rng.random() < 0.2:
        made["metadata"] = {"k": rng.sample(LANGUAGES, 2)}
    if rng.random() < 0.2:
        made["lists"] = rng.sample(LISTS, rng.randint(1, 2))
    if asked := {name: any_detected(rng) for name in rng.sample(DETECTORS, rng.choice([0, 0, 0, 1, 2]))}:
        made["detectors"] = asked
    return made


def any_detected(rng: random.Random) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    if rng.random() < 0.6:
        wanted["label"] = rng.sample(ENDS, rng.randint(1, 3))
    if not wanted or rng.random() < 0.3:
        wanted["scores"] = {rng.choice(LABELS): {"at_least": rng.choice([0.1, 0.5, 0.999])}}
    return wanted


def any_seen(rng: random.Random) -> dict[str, Seen]:
    """What some of the detectors said."""
    out = {}
    for name in rng.sample(DETECTORS, rng.randint(0, len(DETECTORS))):
        label = rng.choice(ENDS)
        p = rng.choice([0.0, 0.1, 0.4999999, 0.5, 0.9989999, 1.0])
        out[name] = Seen(label, dict(zip(LABELS, (p, 1 - p), strict=True)) if label in LABELS else None)
    return out


def any_policy(rng: random.Random) -> Policy:
    """A policy that is sound: rules that are not are left out."""
    rules: list[dict[str, Any]] = []
    for at in range(rng.randint(0, 12)):
        rule = {"id": f"r{at}", "when": any_when(rng), "action": rng.choice(ACTIONS)}
        try:
            of_value({"name": "x", "default": "flag", "allow_errors": True, "rules": [*rules, rule]})
        except PolicyError:
            continue
        rules.append(rule)
    return of_value({
        "name": "x", "default": rng.choice(ACTIONS), "errors": rng.choice(ACTIONS), "allow_errors": True, "rules": rules,
    })  # fmt: skip


def any_codes(rng: random.Random) -> Codes:
    """As a worker writes them, and one in five as no version should."""
    codes = encode(any_judgement(rng))
    if rng.random() < 0.8:
        return codes
    odd: dict[str, Any] = {
        "severity": rng.choice([-1, 4, 300]), "categories": rng.choice([-1, 512, 7]), "served_by": rng.choice([-1, 6, 3, 4, 5]),
        "probabilities": rng.choice([None, b"", b"\x01\x02"]), "category_odds": rng.choice([None, b"\x01"]), "error": "odd",
    }  # fmt: skip
    return codes._replace(**{name: odd[name] for name in rng.sample(list(odd), rng.randint(1, 2))})


def facts_of(
    codes: list[Codes],
    tokens: list[int],
    metadata: list[Any] | None = None,
    hits: list[Any] | None = None,
    seen: list[Any] | None = None,
) -> Facts:
    """As they are read from the table, where there may be anything."""
    made = np.zeros(len(codes), RECORD)
    for row, said, n in zip(made, codes, tokens, strict=True):
        row["severity"], row["categories"], row["served_by"], row["tokens"] = said.severity, said.categories, said.served_by, n
        row["refusal"], row["has_error"] = -1 if said.refusal is None else said.refusal, said.error is not None
        for name, stored, size in (("p", said.probabilities, 3), ("by_category", said.category_odds, len(CATEGORY_CHOICES))):
            fits = stored is not None and len(stored) == size
            row[name] = list(stored) if stored is not None and fits else [255] * size
            row[f"has_{name}"] = 0 if stored is None else 1 if fits else 2
    return RecordFacts.of(made.tobytes(), metadata, hits, seen)


def any_metadata(rng: random.Random) -> dict[str, Any] | None:
    keys = rng.sample(["lang", "language", "k", "x"], rng.randint(0, 3))
    return {key: rng.choice([*LANGUAGES, "7"]) for key in keys} if rng.random() < 0.8 else None


@pytest.mark.parametrize("seed", range(8))
def test_both_evaluators_agree_on_any_policy_and_any_verdict(seed: int) -> None:
    rng = random.Random(seed)
    codes, tokens = [any_codes(rng) for _ in range(300)], [rng.randint(0, 80) for _ in range(300)]
    metadata = [any_metadata(rng) for _ in range(300)]
    hits = [rng.choice([None, set(rng.sample(LISTS, rng.randint(1, 3)))]) for _ in range(300)]
    seen = [any_seen(rng) for _ in range(300)]
    facts = facts_of(codes, tokens, metadata, hits, seen)
    for _ in range(12):
        policy = any_policy(rng)
        found = Decider(policy).outcomes(facts).tolist()
        texts = zip(codes, tokens, metadata, hits, seen, strict=True)
        expected = [decided(policy, decode(one), n, about, hit, said) for one, n, about, hit, said in texts]
        assert found == expected, policy
        sound = [at for at, one in enumerate(codes) if encode(decode(one)) == one]
        about = [metadata[at] for at in sound]
        hit = [hits[at] for at in sound]
        written = CodeFacts([codes[at] for at in sound], [tokens[at] for at in sound], about, hit, [seen[at] for at in sound])
        assert Decider(policy).outcomes(written).tolist() == [expected[at] for at in sound], "what a worker decides"


@pytest.mark.parametrize("seed", range(5))
def test_what_nobody_judged_is_never_allowed_unless_that_is_said(seed: int) -> None:
    rng = random.Random(seed)
    codes, seen = [any_codes(rng) for _ in range(500)], [any_seen(rng) for _ in range(500)]
    said = [decode(one).severity for one in codes]
    is_found = [any(one.label in LABELS for one in row.values()) for row in seen]
    errors = np.array([
        one is Severity.ERROR or (one is Severity.UNRATED and not found) for one, found in zip(said, is_found, strict=True)
    ])  # fmt: skip
    assert {said[at] for at in np.flatnonzero(errors)} == {Severity.ERROR, Severity.UNRATED}
    facts, tried = facts_of(codes, [1] * len(codes), [None] * len(codes), None, seen), 0
    while tried < 20:
        policy = any_policy(rng)
        try:
            decider = Decider(of_value(policy.model_dump(exclude_unset=True) | {"allow_errors": False}))
        except PolicyError:
            continue
        tried += 1
        assert (decider.actions[decider.outcomes(facts)][errors] > Action.ALLOW).all()


@pytest.mark.parametrize("seed", range(20))
def test_more_risk_never_gives_a_milder_action_where_rules_go_from_grave_to_mild(seed: int) -> None:
    rng = random.Random(seed)
    name = rng.choice(["unsafe", "not_safe"])
    bounds = sorted((rng.uniform(0.05, 1.0) for _ in range(6)), reverse=True)
    graver = sorted(rng.choices([1, 2, 3], k=6), reverse=True)
    rules = [
        {"id": f"r{at}", "when": {"probability": {name: {"at_least": bound}}}, "action": ACTIONS[action]}
        for at, (bound, action) in enumerate(zip(bounds, graver, strict=True))
    ]
    decider = Decider(of_value({"name": "x", "default": "allow", "rules": rules}))
    risks = [risk / 255 for risk in range(256)]
    raw = "Safety: Controversial\nCategories: None"
    codes, unknown = [encode(answered(raw, (1 - p, 0.0, p))) for p in risks], encode(answered(raw))
    found = decider.actions[decider.outcomes(facts_of([*codes, unknown], [1] * 257))].tolist()
    assert all(mild <= grave for mild, grave in pairwise(found[:-1]))
    assert found[-1] == max(graver), "a number that is not known makes no action milder"


def test_a_rule_that_is_called_impossible_never_fires() -> None:
    rng, refused = random.Random(5), 0
    codes = [any_codes(rng) for _ in range(2000)]
    facts = facts_of(codes, [rng.randint(0, 80) for _ in codes], [any_metadata(rng) for _ in codes])
    known = facts["has_p"] & (facts["by_category"] != 255).all(axis=1)
    while refused < 40:
        rules = [{"id": f"r{at}", "when": any_when(rng), "action": "flag"} for at in range(4)]
        plain = Policy.model_validate({"name": "x", "default": "flag", "allow_errors": True, "rules": rules})
        try:
            of_value(plain.model_dump(exclude_unset=True))
        except PolicyError as error:
            places = {int(one.where[6 : one.where.index("]")]) for one in error.problems if one.where.startswith("rules[")}
            fired = set(Decider(plain).outcomes(facts)[known].tolist())
            assert not places & fired, (plain, places)
            refused += 1


@given(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=200) | st.sampled_from(["[" * 5000, "a: " * 50, "{" * 900, "- " * 3000])
)
def test_any_text_is_a_policy_or_a_list_of_what_is_wrong(text: str) -> None:
    problems, told = None, ""
    try:
        read(text)
    except PolicyError as error:
        problems = error.problems
        told = str(error)
    assert problems is None or (len(problems) > 0 and all(problem.cause for problem in problems) and told != "")


def test_what_is_wrong_is_told_in_few_words_however_much_it_is() -> None:
    with pytest.raises(PolicyError) as found:
        read(f'? "{"k" * 120_000}"\n:\n' + " a: 1\n" * 20_000)
    told = [str(problem) for problem in found.value.problems]
    assert len(told) == MOST_PROBLEMS
    assert max(map(len, told)) < 200


def test_a_pair_of_escapes_of_json_is_one_character_and_no_other_is_touched() -> None:
    document = {"name": "a", "default": "flag", "description": "\U0001f600 \\ud83d\\ude00 \\\\\U0001f600"}
    assert read(json.dumps(document)).description == document["description"]
    assert read(json.dumps(document, ensure_ascii=False, indent="\t")).description == document["description"]
    with pytest.raises(PolicyError):
        read('{"name": "a", "default": "flag", "description": "\\ud83d"}')
