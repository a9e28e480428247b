"""A shard's texts as JSON: one row's metadata does not affect other rows."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from guardfleet.rows import payload
from guardfleet.rows.payload import PayloadRow

DEEP = 5000  # more than any interpreter here reads in one go


def nested(depth: int) -> str:
    return '{"a":' + "[" * depth + '"]}\\",{"' + "]" * depth + "}"


def as_the_version_before(rows: list[tuple[str, Any, str]]) -> str:
    """What was sealed, with metadata as its caller had written it."""
    return "[" + ",".join(f"[{json.dumps(i)},{json.dumps(content)},{metadata}]" for i, content, metadata in rows) + "]"


texts = st.text(alphabet='ab"\\[]{},: \n\ud800', max_size=12)
contents = st.one_of(texts, st.lists(st.fixed_dictionaries({"role": texts, "content": texts}), min_size=1, max_size=3))
metadata = st.one_of(st.none(), st.dictionaries(texts, st.recursive(texts, lambda inner: st.lists(inner, max_size=2))))


@given(st.lists(st.tuples(texts, contents, metadata), max_size=6), st.integers(0, 6))
def test_a_row_too_deep_to_read_costs_only_its_metadata(rows: list[tuple[str, Any, Any]], at: int) -> None:
    written = [(i, content, json.dumps(more)) for i, content, more in rows]
    written.insert(at, ("deep", "a text", nested(DEEP)))
    wanted = [PayloadRow(*row) for row in rows]
    wanted.insert(at, PayloadRow("deep", "a text", None, (payload.LEFT_OUT,)))
    assert payload.loaded(as_the_version_before(written)) == wanted


@given(st.lists(st.tuples(texts, contents, metadata), max_size=6))
def test_rows_are_read_as_they_were_written(rows: list[tuple[str, Any, Any]]) -> None:
    wanted = [PayloadRow(*row) for row in rows]
    assert payload.loaded(payload.dumped(wanted)) == wanted


def test_metadata_too_deep_to_write_is_left_out() -> None:
    deep: Any = []
    for _ in range(DEEP):
        deep = [deep]
    rows = [PayloadRow("1", "a", {"b": 1}), PayloadRow("2", "c", {"d": deep})]
    assert payload.loaded(payload.dumped(rows)) == [rows[0], PayloadRow("2", "c", None, (payload.LEFT_OUT,))]
