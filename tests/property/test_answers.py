"""Answers and their meaning: parsing undoes rendering, and no parsed answer contradicts itself or its mode."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardfleet.domain.verdict import CATEGORY_NAMES, Category, Severity
from worker.engine.answer import LABELS, Parsed, parse, render

CONSISTENT = [
    Parsed(severity, Category(bits), refusal)
    for severity in LABELS.values()
    for bits in range(512 if severity else 1)
    for refusal in (None, False, True)
    if refusal is None or not bits & Category.JAILBREAK
]
KNOWN = frozenset(CONSISTENT)
SAFE = {
    False: {"Safety: Safe\nCategories: None"},
    True: {f"Safety: Safe\nCategories: None\nRefusal: {said}" for said in ("Yes", "No")},
}
ANSWERS = [
    f"Safety: {label}\nCategories: {category}{refusal}"
    for label in LABELS
    for category in ("None", *CATEGORY_NAMES.values(), "Violent, PII", "None, Violent", "Violent,Violent", "Jailbreak, PII")
    for refusal in ("", "\nRefusal: Yes", "\nRefusal: No")
]
PIECES = (
    "\n", " ", "\t", "\r", "\x0b", "\x1c", "\x85", "\u2028", "\u3000", "\u00a0", "\u200b", "Safe", "Unsafe", "Controversial",
    "Safety: ", "Categories: ", "None", ", None", ",", ":", "Violent", ", Violent", "Jailbreak", "Refusal: ", "\nRefusal: No",
    "Yes", "No", "A", "<|im_end|>", "<think>", "\x00", "s", "S", "\u017f", "\u00e9",
)  # fmt: skip
MUTATIONS = 120_000
READ: Any = getattr(parse, "__wrapped__")  # noqa: B009 - what is remembered would be mostly misses


def mutated(dice: random.Random) -> str:
    text = dice.choice(ANSWERS)
    for _ in range(dice.randint(0, 3)):
        at, chance = dice.randrange(len(text) + 1), dice.random()
        if chance < 0.4:
            text = text[:at] + dice.choice(PIECES) + text[at:]
        elif chance < 0.6:
            text = text[:at] + text[at + dice.randint(1, 6) :]
        elif chance < 0.8:
            text = text[:at] + dice.choice(PIECES) + text[at + dice.randint(1, 4) :]
        else:
            other = dice.choice(ANSWERS)
            text = text[:at] + other[dice.randrange(len(other) + 1) :]
    return text


@given(st.sampled_from(CONSISTENT))
def test_reading_undoes_rendering(parsed: Parsed) -> None:
    responds = parsed.refusal is not None
    assert parse(render(parsed), responds=responds) == parse(render(parsed)) == parsed
    assert parse(render(parsed), responds=not responds) is None


@given(st.text())
def test_no_text_makes_the_parser_raise(raw: str) -> None:
    assert parse(raw) in {None, *KNOWN}


@pytest.mark.parametrize("seed", [1, 2])
def test_no_mutated_answer_that_is_read_contradicts_itself_or_is_safe_but_to_the_letter(seed: int) -> None:
    dice = random.Random(seed)
    accepted = refused = 0
    for _ in range(MUTATIONS // 2):
        raw, responds = mutated(dice), dice.random() < 0.5
        found = READ(raw, responds=responds)
        if found is None:
            refused += 1
            continue
        accepted += 1
        assert found in KNOWN
        assert (found.refusal is not None) is responds
        assert found.severity is not Severity.SAFE or raw in SAFE[responds]
        names = [name.strip() for name in raw.strip().split("\n")[1].removeprefix("Categories: ").split(",")]
        assert len(names) == len(set(names)) == max(1, found.categories.bit_count())
        assert READ(render(found), responds=responds) == found
    assert accepted > 1000
    assert refused > 1000


def test_no_pair_of_a_safe_answer_and_another_is_safe() -> None:
    for responds, answers in SAFE.items():
        for one in answers:
            for other in ANSWERS:
                assert parse(one + other, responds=responds) is None
                assert parse(f"{one}\n{other}", responds=responds) is None
                assert parse(f"{other}\n{one}", responds=responds) is None
