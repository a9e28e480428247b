"""Reviewing without rows: agreement against the reference, when a break is due, and which characters of a text are masked."""

import datetime as dt

import krippendorff
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.console.pages.review.text import MOST_CHARS, Part, Span, Text, parts
from guardfleet.domain.reviews import REST, unsafe_since_rest
from guardfleet.domain.verdict import Severity
from guardfleet.sampling.reliability import alpha

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
UNITS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=2, max_size=40)


@pytest.mark.parametrize("level", ["nominal", "ordinal"])
@given(units=UNITS)
def test_alpha_is_that_of_the_krippendorff_package(level: str, units: list[list[int]]) -> None:
    found = alpha(units, n_values=3, level=level)  # type: ignore[arg-type]
    if len({value for unit in units if len(unit) > 1 for value in unit}) < 2:
        assert found is None
        return
    table = np.array([unit + [np.nan] * (4 - len(unit)) for unit in units]).T
    wanted = krippendorff.alpha(reliability_data=table, level_of_measurement=level, value_domain=[0, 1, 2])
    assert found.value == pytest.approx(wanted, abs=1e-9)
    assert found.low <= found.value <= found.high


def test_an_interval_narrows_with_more_texts() -> None:
    pairs = [[0, 0], [1, 1], [2, 2], [0, 2]]
    few, many = (alpha(pairs * n, n_values=3, level="ordinal") for n in (5, 500))
    assert many.high - many.low < (few.high - few.low) / 5
    assert alpha([], n_values=3, level="nominal") is None


def test_a_break_is_one_that_was_taken_or_a_pause() -> None:
    def at(minutes: float, severity: Severity = Severity.UNSAFE) -> tuple[dt.datetime, Severity]:
        return NOW - dt.timedelta(minutes=minutes), severity

    decided = [at(1), at(2, Severity.SAFE), at(3), at(12), at(40), at(41)]
    assert unsafe_since_rest(decided, rested_at=None, now=NOW) == 3
    assert unsafe_since_rest(decided, rested_at=NOW - dt.timedelta(minutes=2.5), now=NOW) == 1
    assert unsafe_since_rest(decided, rested_at=None, now=NOW + REST) == 0
    assert unsafe_since_rest([], rested_at=None, now=NOW) == 0


@given(text=st.text(max_size=60), spans=st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), max_size=6))
def test_masks_cover_their_spans_and_lose_no_character(text: str, spans: list[tuple[int, int]]) -> None:
    found = parts(text, [Span(*one) for one in spans])
    assert "".join(part.text for part in found) == text
    masked = [part.is_masked for part in found for _ in part.text]
    assert masked == [any(start <= i < end for start, end in spans) for i in range(len(text))]


def test_spans_are_of_their_turn_and_windows_of_the_last() -> None:
    turns = [{"role": "user", "content": "abcdef"}, {"role": "assistant", "content": "ghijkl"}]
    evidence = {"lists": [{"start": 1, "end": 2, "turn": 0}], "windows": [[0, 3], [2, 6]], "decided": [2, 6]}
    first, last = Text.of(turns, evidence).turns
    assert list(first.parts) == [Part("a", is_masked=False), Part("b", is_masked=True), Part("cdef", is_masked=False)]
    assert list(last.parts) == [Part("gh", is_masked=False), Part("ijkl", is_masked=True)]
    whole = Text.of("abc", {"windows": [[0, 3]], "decided": [0, 3]})
    assert not whole.has_masks
    assert Text.of("x" * (MOST_CHARS + 5), None).cut == 5
