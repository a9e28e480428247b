"""Errors keep being errors where only some columns are at hand, and a judgement is read later as it was made."""

import pytest

from guardfleet.domain.verdict import Category, Severity, with_notes
from guardfleet.verdicts.encoding import as_stored, of_plain, severity_and_categories
from tests.services.judged import answered


@pytest.mark.parametrize("severity", Severity)
def test_two_columns_alone_say_the_severity_that_was_stored(severity: Severity) -> None:
    categories = Category.VIOLENT if severity in (Severity.UNSAFE, Severity.CONTROVERSIAL) else Category(0)
    assert severity_and_categories(int(severity), int(categories)) == (severity, categories)


@pytest.mark.parametrize(("severity", "categories"), [(9, 0), (-2, 0), (int(Severity.SAFE), 1 << 40)])
def test_columns_that_nobody_writes_are_an_error(severity: int, categories: int) -> None:
    assert severity_and_categories(severity, categories)[0] is Severity.ERROR


def test_what_is_read_later_keeps_token_counts_and_evidence() -> None:
    raw = "Safety: Safe\nCategories: None"
    made = with_notes(answered(raw, (0.9, 0.08, 0.02), input_tokens=7, output_tokens=3), ["n"])
    later = as_stored(made)
    assert (later.input_tokens, later.output_tokens, later.evidence) == (7, 3, {"notes": ["n"]})
    assert later.probabilities == pytest.approx(made.probabilities, abs=1 / 255)


@pytest.mark.parametrize("stored", [None, 7, [], ["safe"], {"severity": 0}])
def test_a_provisional_verdict_of_another_form_is_an_error_that_says_so(stored: object) -> None:
    found = of_plain(stored)  # type: ignore[arg-type]
    assert (found.severity, found.error, found.error_detail) == (
        Severity.ERROR,
        "unreadable",
        "a provisional verdict of another form",
    )
