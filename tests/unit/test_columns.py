"""Tables whose columns are named like members of batch lines: the text, or the column that was named, is judged."""

import io
import json
import pathlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guardfleet.errors import LineError, RejectedError
from guardfleet.rows.columns import Columns
from guardfleet.rows.payload import PayloadRow
from producer.readers import Input, Line, Reading


def table(fmt: str, rows: list[dict[str, Any]]) -> bytes:
    if fmt == "parquet":
        out = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), out)
        return out.getvalue()
    if fmt == "csv":
        return "".join(",".join(row) + "\n" for row in [list(rows[0]), *(list(row.values()) for row in rows)]).encode()
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read(folder: pathlib.Path, fmt: str, rows: list[dict[str, Any]], text: str | None = None) -> list[Line]:
    path = folder / f"in.{fmt}"
    path.write_bytes(table(fmt, rows))
    return [row for _, row in Input(str(path), Reading(columns=Columns.of(text, None, None)), max_text_bytes=1 << 20).rows()]


@pytest.mark.parametrize("fmt", ["parquet", "csv", "jsonl"])
def test_columns_of_batch_lines_are_columns_in_every_format(tmp_path: pathlib.Path, fmt: str) -> None:
    (row,) = read(tmp_path, fmt, [{"request": "/x", "text": "ok", "comment": "words"}], "comment")
    assert isinstance(row, PayloadRow)
    assert (row.content, row.metadata) == ("words", {"request": "/x", "text": "ok"})
    taken, blank, hidden = read(tmp_path, fmt, [
        {"custom_id": "a", "text": "words", "body": "b"}, {"custom_id": "a", "text": "", "body": ""},
        {"custom_id": "a", "text": "", "body": "words"},
    ])  # fmt: skip
    assert isinstance(taken, PayloadRow)
    assert (taken.content, taken.metadata) == ("words", {"custom_id": "a", "body": "b"})
    assert isinstance(blank, PayloadRow)
    assert isinstance(hidden, LineError)
    assert hidden.code == "unknown_member"


@pytest.mark.parametrize("fmt", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("text", [None, "text"])
def test_a_title_that_is_called_like_a_conversation_is_metadata(tmp_path: pathlib.Path, fmt: str, text: str | None) -> None:
    titled, blank = read(tmp_path, fmt, [{"text": "words", "conversation": "c1"}, {"text": "", "conversation": "words"}], text)
    assert isinstance(titled, PayloadRow)
    assert (titled.content, titled.metadata) == ("words", {"conversation": "c1"})
    assert isinstance(blank, LineError)


@pytest.mark.parametrize("fmt", ["parquet", "csv"])
def test_a_member_that_comes_twice_in_a_cell_costs_its_row(tmp_path: pathlib.Path, fmt: str) -> None:
    cell = '[{"role":"user","content":"words","content":"ok"}]'
    rows = [{"id": "a", "messages": cell if fmt == "parquet" else '"' + cell.replace('"', '""') + '"'}]
    (row,) = read(tmp_path, fmt, rows)
    assert isinstance(row, LineError)
    assert row.code == "repeated_key"


@pytest.mark.parametrize("fmt", ["parquet", "csv"])
def test_of_two_columns_called_alike_one_has_to_be_named(tmp_path: pathlib.Path, fmt: str) -> None:
    rows = [{"id": "a", "text": "ok", "Text": "words"}]
    with pytest.raises(RejectedError, match="has columns named text and Text: choose the one to judge with --text-column NAME"):
        read(tmp_path, fmt, rows)
    (row,) = read(tmp_path, fmt, rows, "Text")
    assert isinstance(row, PayloadRow)
    assert (row.content, row.metadata) == ("words", {"text": "ok"})
