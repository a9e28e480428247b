"""Metadata of a row: kept as the nearest JSON, or left out with a note, and never at the cost of its text."""

import datetime as dt
import decimal
import json
import uuid
from typing import Any

import pytest

from guardfleet.errors import LineError
from guardfleet.rows.metadata import NOTES
from guardfleet.rows.payload import PayloadRow
from tests.unit.test_row import line, taken


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"at": dt.datetime(2026, 1, 2, 3, 4, tzinfo=dt.UTC)}, {"at": "2026-01-02T03:04:00+00:00"}),
        ({"on": dt.date(2026, 1, 2), "at": dt.time(3, 4)}, {"on": "2026-01-02", "at": "03:04:00"}),
        ({"price": decimal.Decimal("1.10")}, {"price": "1.10"}),
        ({"who": uuid.UUID(int=5)}, {"who": "00000000-0000-0000-0000-000000000005"}),
        ({"many": (1, 2)}, {"many": [1, 2]}),
        ({7: "seven"}, {"7": "seven"}),
        ('{"lang": "en"}', {"lang": "en"}),
        ([("lang", "en")], {"lang": "en"}),
        ({"n": 2**64}, {"n": "18446744073709551616"}),
        ({}, {}),
    ],
)
def test_metadata_is_kept_as_the_nearest_json(given: Any, kept: Any) -> None:
    row = taken({"id": "a", "text": "x", "metadata": given})
    assert (row.metadata, row.notes) == (kept, ())


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("given", "kept", "said"),
    [
        ({"a": 1, "b": float("nan")}, {"a": 1, "b": None}, "'b' is none that JSON has"),
        ({"a": 1, "b": [float("inf")]}, {"a": 1, "b": [None]}, "'b' is none that JSON has"),
        ({"a": 1, "b": decimal.Decimal("NaN")}, {"a": 1, "b": None}, "'b' is none that JSON has"),
        ({"a": 1, "b": {1, 2}}, {"a": 1}, "'b' is of the type set"),
        ({"a": 1, "b": b"\xff"}, {"a": 1}, "'b' is bytes"),
        ({"a": 1, "b": "x\0y"}, {"a": 1}, "'b' holds a NUL"),
        ({"a": 1, "b": ["\ud800"]}, {"a": 1}, "'b' holds a NUL byte or a lone surrogate"),
        ({"a": 1, "b\0": 2}, {"a": 1}, "of another name has a name"),
        ({"a": 1, "b": nested(64)}, {"a": 1}, "'b' is nested deeper than 64 levels"),
        ({"b": b"\xff"}, None, "'b' is bytes"),
        ({"a": "y" * 17_000}, None, "more than 16384 characters"),
        ("plain", None, "not an object but a string"),
        ([1, 2], None, "not an object but a list"),
        (5, None, "not an object but a number"),
    ],
)
def test_what_cannot_be_kept_is_left_out_with_a_note(given: Any, kept: Any, said: str) -> None:
    row = taken({"id": "a", "text": "x", "metadata": given})
    assert row.metadata == kept
    assert len(row.notes) == 1
    assert said in row.notes[0]


def test_63_levels_inside_metadata_are_kept() -> None:
    row = taken({"id": "a", "text": "x", "metadata": {"b": nested(63)}})
    assert (row.metadata, row.notes) == ({"b": nested(63)}, ())


def test_metadata_that_holds_itself_is_left_out() -> None:
    loop: dict[str, Any] = {"a": 1}
    loop["me"] = loop
    row = taken({"id": "a", "text": "x", "metadata": loop})
    assert row.metadata == {"a": 1}
    assert "deeper" in row.notes[0]


def test_notes_are_few_and_a_producers_own_go_with_them() -> None:
    row = taken({"id": "a", "text": "x", "metadata": {**{f"k{i}": b"" for i in range(20)}, "kept": 1}})
    assert row.metadata == {"kept": 1}
    assert len(row.notes) == 9
    assert "12 more" in row.notes[-1]
    sent = taken({"id": "a", "text": "x", "metadata": {NOTES: ["left out before"], "kept": 1}})
    assert (sent.metadata, sent.notes) == ({"kept": 1}, ("left out before",))


@pytest.mark.parametrize("levels", [60, 100, 500, 975, 990, 1100, 30_000])
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")])
def test_depth_costs_the_metadata_and_never_the_text(levels: int, brackets: tuple[str, str]) -> None:
    deep = brackets[0] * levels + "1" + brackets[1] * levels

    def from_deep_down(left: int) -> PayloadRow | LineError:  # how deep the caller stands changes nothing
        return from_deep_down(left - 1) if left else line(f'{{"id": "p", "text": "hello", "metadata": {{"a": {deep}, "b": 1}}}}')

    for stack in (0, 600):
        row = from_deep_down(stack)
        assert isinstance(row, PayloadRow)
        assert row.content == "hello"
        assert json.loads(json.dumps(row.metadata))["b"] == 1
        assert bool(row.notes) is (levels > 64)


@pytest.mark.parametrize("number", ["1" * 5000, "-" + "1" * 5000, "1e400", "NaN", "-Infinity"])
def test_a_number_that_no_machine_holds_costs_the_text_nothing(number: str) -> None:
    row = line(f'{{"id": "a", "text": "x", "extra": {number}, "metadata": {{"n": {number}}}}}')
    assert isinstance(row, PayloadRow)
    assert row.metadata == {"extra": None, "n": None}
    assert len(row.notes) == 2
