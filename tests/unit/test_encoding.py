"""The columns of a verdict and their meaning: nothing is lost, and nothing that is not understood is safe."""

import datetime as dt
import math
from dataclasses import replace
from typing import Any

import orjson
import pytest

from api.openai.categories import result_json
from guardfleet.domain.verdict import CATEGORY_CHOICES, Category, Model, ServedBy, Severity
from guardfleet.verdicts.encoding import (
    READ_COLUMNS,
    Codes,
    StoredVerdict,
    as_stored,
    decode,
    encode,
    of_plain,
    severity_and_categories,
    to_plain,
)
from guardfleet.verdicts.rendering import fields, json_object
from tests.services.judged import UNSAFE, answered

MODEL = Model("m", "0123456789abcdef", "p")
GOOD = encode(answered("Safety: Unsafe\nCategories: PII", (0.1, 0.2, 0.7), (0.0,) * 10))
BROKEN: list[dict[str, Any]] = [
    {"severity": 7},
    {"severity": -1},
    {"categories": 512},
    {"categories": -1},
    {"served_by": 9},
    {"served_by": -1},
    {"probabilities": b"\xff"},
    {"probabilities": b""},
    {"category_odds": b"\xff" * 9},
    {"category_odds": b"\xff" * 11},
    {"severity": int(Severity.ERROR)},
    {"error": "unparsed"},
    {"severity": 0},  # and names a category
    {"served_by": int(ServedBy.NOBODY)},
    {"served_by": int(ServedBy.RULE_EMPTY)},
]


def stored(codes: Codes) -> StoredVerdict:
    values = {"ord": 0, "seq": 3, "id": "x", "model_id": 1, "input_tokens": 10, "output_tokens": 8} | codes._asdict()
    return StoredVerdict._make(values.get(name, dt.datetime.now(dt.UTC) if name == "done_at" else None) for name in READ_COLUMNS)


def test_a_row_holds_the_codes_under_their_own_names() -> None:
    assert Codes._make(stored(GOOD).codes) == GOOD
    assert {f"{name}_code" for name in Codes._fields} == {name for name in StoredVerdict._fields if name.endswith("_code")}


def test_every_byte_of_a_probability_and_of_odds_stays_what_it_is() -> None:
    for byte in range(256):
        codes = GOOD._replace(probabilities=bytes([byte, 0, 0]), category_odds=bytes([byte] * len(CATEGORY_CHOICES)))
        assert encode(decode(codes)) == codes


@pytest.mark.parametrize("change", BROKEN, ids=str)
def test_what_is_not_understood_is_an_error_on_every_face(change: dict[str, Any]) -> None:
    row = stored(GOOD._replace(**change))
    said = row.judgement
    assert (said.severity, said.categories, said.refusal, said.error) == (Severity.ERROR, Category.NONE, None, "unreadable")
    shown = orjson.loads(json_object(row, MODEL))
    assert (shown["severity"], shown["categories"], shown["probabilities"]) == ("error", [], None)
    assert shown["error"]["code"] == "unreadable"
    assert shown["rationale"].startswith("No verdict: ")
    assert (fields(row, MODEL)["severity"], fields(row, MODEL)["p_safe"]) == ("error", None)
    moderation = orjson.loads(result_json(row, MODEL))
    assert moderation["flagged"]
    assert not any(moderation["category_applied_input_types"].values())


@pytest.mark.parametrize(
    "wrong",
    [
        {"probabilities": (math.nan, 0.5, 0.5)},
        {"probabilities": (math.inf, 0.0, 0.0)},
        {"probabilities": (-0.5, 0.5, 1.0)},
        {"probabilities": (0.5, 0.5)},
        {"category_odds": (math.nan,) * 10},
        {"category_odds": (0.1,) * 9},
        {"categories": Category(1024)},
        {"severity": Severity.SAFE},  # and names a category
        {"error": "unparsed"},
    ],
    ids=str,
)
def test_what_cannot_be_stored_is_stored_as_an_error(wrong: dict[str, Any]) -> None:
    found = as_stored(replace(UNSAFE, **wrong))
    assert (found.severity, found.error) == (Severity.ERROR, "unreadable")
    assert of_plain(to_plain(replace(UNSAFE, **wrong))).severity is Severity.ERROR


def test_a_sealed_opinion_of_another_form_is_an_error() -> None:
    for values in ([], [9] * 12, [0, 0, None, 0, None, None, None, 1, 1, 5, None, None], ["safe"] * 12):
        assert of_plain(values).severity is Severity.ERROR


def test_two_columns_alone_are_no_safer_than_the_whole_row() -> None:
    assert severity_and_categories(2, 1) == (Severity.UNSAFE, Category.VIOLENT)
    assert severity_and_categories(3, 0) == (Severity.ERROR, Category.NONE)
    for severity, categories in ((7, 0), (-2, 0), (-1, 1), (0, 1), (1, 512)):
        assert severity_and_categories(severity, categories) == (Severity.ERROR, Category.NONE)
