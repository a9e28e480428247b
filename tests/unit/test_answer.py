"""The answer grammar: strict, total, and never safe by default."""

import pytest

from guardfleet.domain.verdict import Category, Severity
from worker.engine.answer import Parsed, parse, render


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Safety: Safe\nCategories: None", Parsed(Severity.SAFE)),
        ("Safety: Unsafe\nCategories: Violent", Parsed(Severity.UNSAFE, Category.VIOLENT)),
        ("Safety: Controversial\nCategories: PII, Jailbreak", Parsed(Severity.CONTROVERSIAL, Category.PII | Category.JAILBREAK)),
        ("Safety: Unsafe\nCategories: Non-violent Illegal Acts", Parsed(Severity.UNSAFE, Category.ILLEGAL)),
        ("Safety: Safe\nCategories: None\nRefusal: Yes", Parsed(Severity.SAFE, refusal=True)),
        ("Safety: Safe\nCategories: None\nRefusal: No", Parsed(Severity.SAFE, refusal=False)),
        ("Safety: Unsafe\nCategories: Violent,PII\n", Parsed(Severity.UNSAFE, Category.VIOLENT | Category.PII)),
        ("Safety: Unsafe\nCategories: None", Parsed(Severity.UNSAFE)),  # of no category of the policy: no contradiction
    ],
)
def test_an_answer_in_the_grammar_is_read(raw: str, expected: Parsed) -> None:
    assert parse(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "Safe",
        "safety: safe\ncategories: none",
        "Safety: Safe",
        "Safety: Safe\nCategories: Weather",
        "Safety: Maybe\nCategories: None",
        "I think this is Safety: Safe\nCategories: None of them",
        "Safety: Safe\nCategories: None\nRefusal: Perhaps",
        "Safety: Safe\nCategories: None\n\nSafety: Unsafe\nCategories: Violent",
        "Safety: Safe\nCategories: none",
        "\ud800",
    ],
)
def test_anything_else_has_no_verdict(raw: str) -> None:
    assert parse(raw) is None


@pytest.mark.parametrize(
    ("raw", "responds"),
    [
        ("Safety: Safe\nCategories: Violent", False),
        ("Safety: Safe\nCategories: None, Violent", False),
        ("Safety: Unsafe\nCategories: None, Violent", False),
        ("Safety: Unsafe\nCategories: None, None", False),
        ("Safety: Unsafe\nCategories: Violent, Violent", False),
        ("Safety: Safe\nCategories: None\nRefusal: No", False),
        ("Safety: Safe\nCategories: None", True),
        ("Safety: Unsafe\nCategories: Violent", True),
        ("Safety: Unsafe\nCategories: Jailbreak\nRefusal: No", True),
        ("Safety: Safe\nCategories: None\n", False),
        (" Safety: Safe\nCategories: None", False),
        ("Safety: Safe\nCategories:  None", False),
    ],
)
def test_an_answer_that_contradicts_itself_or_its_mode_has_no_verdict(raw: str, responds: bool) -> None:
    assert parse(raw, responds=responds) is None


def test_rendering_is_the_canonical_spelling() -> None:
    assert (
        render(Parsed(Severity.UNSAFE, Category.SELF_HARM, refusal=False))
        == "Safety: Unsafe\nCategories: Suicide & Self-Harm\nRefusal: No"
    )
