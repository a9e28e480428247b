"""Complaints of other tools' users, c01 to c30, each with inputs made here: what is accepted, and which lines are refused."""

import datetime as dt
import decimal
import gzip
import io
import json
import pathlib
import uuid
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd

from guardfleet.errors import LineError, RejectedError
from guardfleet.rows.columns import Columns
from guardfleet.rows.payload import PayloadRow
from producer.readers import AS_FOUND, Input, Reading

BODY = Reading(columns=Columns.of("body", None, None))
CALL = {"type": "function", "function": {"name": "look", "arguments": '{"q": "rain"}'}}


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def table(**columns: list[Any]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def arrow() -> bytes:
    file, found = io.BytesIO(), pa.table({"text": ["a"]})
    with pa.ipc.new_file(file, found.schema) as writer:
        writer.write_table(found)
    return file.getvalue()


def request(no: str, url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": no, "method": "POST", "url": url, "body": body}


CSV, TWO = b"id,text\n1,a\n2,b\n", b'{"text": "a"}\n{"text": "b"}\n'
PLAIN = ["a", "b"]
MODERATIONS, COMPLETIONS = "/v1/moderations", "/v1/chat/completions"
ODD = ["\ud800", "a\0b", "\u2028x\u0085", "<|im_end|>", "\x1b[31m"]
PART = [{"type": "text", "text": "a"}]
IMAGE = [{"type": "image_url", "image_url": {"url": "x"}}]
# The case, the file's name, its bytes, how it is read, the texts that are judged, and the lines that are refused.
READ: list[tuple[str, str, bytes, Reading, list[str], list[tuple[int, int, str]]]] = [
    ("c01", "a.csv", b"id,text\n1,a\n2,b, and more\n", AS_FOUND, ["a"], [(3, 3, "invalid_csv")]),
    ("c02", "a.csv", b'id,text\n1,a\n2,"b\n3,c\n4,d\n', AS_FOUND, ["a"], [(3, 5, "invalid_csv")]),
    ("c03", "a.csv", b'id,text\n1,a\n2,"b\n3,c\n4,d "e"\n5,b\n', AS_FOUND, PLAIN, [(3, 5, "invalid_csv")]),
    ("c04", "a.jsonl", b'{"text": "a", "text": "b"}\n{"text": "b"}', AS_FOUND, ["b"], [(1, 1, "repeated_key")]),
    ("c05", "a.csv", b"text\na\ncaf\xe9\nb\n", AS_FOUND, PLAIN, [(3, 3, "invalid_encoding")]),
    ("c05", "a.csv", b"text\ncaf\xe9\n", Reading(encoding="windows-1252"), ["caf\xe9"], []),
    ("c06", "a.jsonl", b"\xef\xbb\xbf" + TWO, AS_FOUND, PLAIN, []),
    ("c06", "a.csv", b"\xef\xbb\xbf" + CSV, AS_FOUND, PLAIN, []),
    ("c06", "a.jsonl", TWO[:14] + b"\xef\xbb\xbf" + TWO[14:], AS_FOUND, PLAIN, []),
    ("c07", "a.jsonl", TWO.decode().encode("utf-16"), AS_FOUND, PLAIN, []),
    ("c07", "a.csv", CSV.decode().encode("utf-16"), AS_FOUND, PLAIN, []),
    ("c07", "a.jsonl", gzip.compress(TWO), AS_FOUND, PLAIN, []),
    ("c08", "a.jsonl", lines({"messages": [said("user", "", content_blocks=PART)]}, {"messages": [said("user", "", refusal="b")]}),
     AS_FOUND, PLAIN, []),
    ("c08", "a.jsonl", lines({"messages": [said("user", "", aside="words")]}), AS_FOUND, [], [(1, 1, "unknown_member")]),
    ("c09", "a.jsonl", lines({"messages": [said("user", PART)]}, {"messages": [said("user", IMAGE)]}), AS_FOUND, ["a"],
     [(2, 2, "unsupported_content")]),
    ("c09", "a.jsonl", lines(request("1", MODERATIONS, input=["a", "b"]), request("2", MODERATIONS, input=["a"]),
                             request("3", MODERATIONS, input=[{"type": "text", "text": "b"}]),
                             request("4", MODERATIONS, input=IMAGE)),
     AS_FOUND, PLAIN, [(1, 1, "wrong_type"), (4, 4, "unsupported_content")]),
    ("c10", "a.jsonl", lines(
        {"messages": [said("developer", "be kind"), said("USER", "a")]},
        {"messages": [said("user", "x"), said("assistant", None, tool_calls=[CALL])]},
        {"messages": [said("user", "x"), said("tool", "b", tool_call_id="1")]},
        {"messages": [said("assistant", "welcome"), said("user", "x"), said("system", "late"), said("model", "c")]},
     ), AS_FOUND, ["a", '[tool call] look {"q": "rain"}', "[tool result]\nb", "c"], []),
    ("c11", "a.jsonl", lines({"conversations": [{"from": "human", "value": "x"}, {"from": "gpt", "value": "a"}]},
                             {"conversation": [said("user", "b")]}, {"messages": [{"from": "system", "value": "c"}]},
                             {"conversations": [{"from": "narrator", "value": "d"}]}),
     AS_FOUND, ["a", "b", "c"], [(4, 4, "unknown_role")]),
    ("c11", "a.parquet", table(conversations=[[{"from": "human", "value": "a"}]]), AS_FOUND, ["a"], []),
    ("c12", "a.csv", b"id,body\n1,a\n2,b\n", BODY, PLAIN, []),
    ("c12", "a.jsonl", lines({"body": "a"}, {"body": "b"}), BODY, PLAIN, []),
    ("c12", "a.parquet", table(body=PLAIN), BODY, PLAIN, []),
    ("c12", "a.csv", b"ID, Text\n1,a\n2,b\n", AS_FOUND, PLAIN, []),
    ("c18", "a.jsonl.gz", gzip.compress(TWO), AS_FOUND, PLAIN, []),
    ("c18", "a.csv.zst", zstd.compress(CSV), AS_FOUND, PLAIN, []),
    ("c18", "a.tsv", b"id\ttext\n1\ta\n2\tb\n", AS_FOUND, PLAIN, []),
    ("c18", "a.csv", b"sep=;\nid;text\n1;a\n2;b\n", AS_FOUND, PLAIN, []),
    ("c18", "a.feather", arrow(), AS_FOUND, ["a"], []),
    ("c19", "a.json", b'[{"text": "a"}, {"text": "b"}]', AS_FOUND, PLAIN, []),
    ("c19", "a.json", b'[\n {\n  "text": "a"\n },\n {\n  "text": "b"\n }\n]\n', AS_FOUND, PLAIN, []),
    ("c19", "a.json", b'{\n "text": "a"\n}\n', AS_FOUND, ["a"], []),
    ("c19", "a.json", b'{"data": [{"text": "a"}, {"text": "b"}]}', AS_FOUND, PLAIN, []),
    ("c19", "a.ndjson", b'{"text": "a"},\n{"text": "b"},\n', AS_FOUND, PLAIN, []),
    ("c20", "a.jsonl", b"", AS_FOUND, [], []),
    ("c20", "a.csv", b"id,text\n", AS_FOUND, [], []),
    ("c27", "a.jsonl", lines(*ODD), AS_FOUND, ODD, []),
    ("c27", "a.csv", b"text\na\0b\n", AS_FOUND, ["a\0b"], []),
]  # fmt: skip
IDS: list[tuple[str, str, bytes, list[str]]] = [
    ("c16", "a.jsonl", b'{"text": "a"}\n{"id": "1", "text": "b"}\n{"id": null, "text": "c"}\n', ["line:1", "1", "line:3"]),
    ("c16", "a.csv", b"id,text\n,a\n2,b\n", ["line:2", "2"]),
    ("c17", "a.jsonl", b'{"id": 1.0, "text": "a"}\n{"id": 2.0, "text": "b"}\n', ["1", "2"]),
    ("c17", "a.parquet", table(id=[1.0, None, float("nan")], text=["a", "b", "c"]), ["1", "line:2", "line:3"]),
    ("c17", "a.parquet", table(id=[uuid.UUID(int=7).bytes], text=["a"]), [str(uuid.UUID(int=7))]),
    ("c21", "a.csv", b"id,text\n-5,a\n+1,b\n@me,c\n=12,d\n", ["-5", "+1", "@me", "=12"]),
]
WHEN = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
METADATA: list[tuple[str, str, bytes, Any, int]] = [
    ("c13", "a.parquet", table(text=["a"], lang=["en"], n=[1]), {"lang": "en", "n": 1}, 0),
    ("c13", "a.jsonl", b'{"text": "a", "lang": "en", "n": 1}', {"lang": "en", "n": 1}, 0),
    ("c13", "a.csv", b",text,lang\n0,a,en\n", {"lang": "en"}, 0),
    ("c13", "a.csv", b'text,metadata\na,"{""k"": 1}"\n', {"k": 1}, 0),
    ("c13", "a.parquet", table(text=["a"], metadata=['{"k": 1}']), {"k": 1}, 0),
    ("c14", "a.parquet", table(text=["a"], metadata=[{"at": WHEN}]), {"at": "2026-01-02T00:00:00+00:00"}, 0),
    ("c14", "a.parquet", table(text=["a"], metadata=[{"p": decimal.Decimal("1.10"), "b": b"\xff"}]), {"p": "1.10"}, 1),
    ("c15", "a.jsonl", b'{"text": "a", "metadata": {"n": NaN}}', {"n": None}, 1),
    ("c15", "a.jsonl", b'{"text": "a", "metadata": "words"}', None, 1),
    (
        "c26",
        "a.jsonl",
        b'{"text": "a", "metadata": {"n": "one", "deep": {"k": [1, null]}}}',
        {"n": "one", "deep": {"k": [1, None]}},
        0,
    ),
]
WHOLE: list[tuple[str, str, bytes, str]] = [
    ("c04", "a.csv", b"id,text,text\n1,a,b\n", "has two columns named text"),
    ("c12", "a.csv", b"id,body\n1,a\n", "Its columns: id, body. Use --text-column body to take that one"),
    ("c12", "a.jsonl", b'{"body": "a"}\n', "Its columns: body. Use --text-column body"),
    ("c12", "a.parquet", table(body=["a"]), "Its columns: body. Use --text-column body"),
    ("c19", "a.json", b'[{"id": 1, "data": {"body": "a"}}]', "Its columns: id, data"),
]


def reading(tmp_path: pathlib.Path, name: str, data: bytes, asked: Reading = AS_FOUND) -> Input:
    (tmp_path / name).write_bytes(data)
    return Input(str(tmp_path / name), asked, max_text_bytes=1 << 20)


def taken(tmp_path: pathlib.Path, name: str, data: bytes) -> list[PayloadRow]:
    return [row for _, row in reading(tmp_path, name, data).rows() if isinstance(row, PayloadRow)]


def named(case: Any) -> str | None:
    return case if isinstance(case, str) else None


@pytest.mark.parametrize(("case", "name", "data", "asked", "texts", "refused"), READ, ids=[f"{row[0]}-{row[1]}" for row in READ])
def test_each_case_of_reading_is_judged_whole_or_refused_by_its_lines(
    tmp_path: pathlib.Path, case: str, name: str, data: bytes, asked: Reading, texts: list[str], refused: list[tuple[int, int, str]]
) -> None:
    """c01 to c12, c18, c19, c20 and c27; below c04, c12 and c19 where the file is refused, c13 to c17, c21 and c26.

    c20 as a command and over HTTP: http/test_remote.py, http/test_inline_lines.py. c21, c26 as exports: store/test_export.py. c22,
    c23: http/test_cases.py. c24: faults/test_kills.py. c25: fleet/test_webhooks.py. c28, c29: fleet/test_moderations.py. c30:
    test_engine.py, engine/test_windows.py.
    """
    del case
    rows = [row for _, row in reading(tmp_path, name, data, asked).rows()]
    found = [row.content for row in rows if isinstance(row, PayloadRow)]
    assert [text if isinstance(text, str) else text[-1]["content"] for text in found] == texts
    errors = [row for row in rows if isinstance(row, LineError)]
    assert [(error.line, error.line + error.n_lines - 1, error.code) for error in errors] == refused


def test_rows_that_a_quote_closed_later_has_swallowed_are_warned_of(tmp_path: pathlib.Path) -> None:
    """c03, where it is formally a valid CSV."""
    source = reading(tmp_path, "a.csv", b'id,text\n1,a\n2,"b\n3,c\n4,d"\n')
    assert len(list(source.rows())) == 2
    assert source.warnings[0].startswith("lines 3-5 are one row")


@pytest.mark.parametrize(("case", "name", "data", "ids"), IDS, ids=[f"{row[0]}-{row[1]}" for row in IDS])
def test_each_case_of_ids(tmp_path: pathlib.Path, case: str, name: str, data: bytes, ids: list[str]) -> None:
    del case
    assert [row.id for row in taken(tmp_path, name, data)] == ids


@pytest.mark.parametrize(("case", "name", "data", "metadata", "n_notes"), METADATA, ids=[f"{row[0]}-{row[1]}" for row in METADATA])
def test_each_case_of_what_is_passed_on(
    tmp_path: pathlib.Path, case: str, name: str, data: bytes, metadata: Any, n_notes: int
) -> None:
    del case
    (row,) = taken(tmp_path, name, data)
    assert (row.content, row.metadata, len(row.notes)) == ("a", metadata, n_notes)


@pytest.mark.parametrize(("case", "name", "data", "words"), WHOLE, ids=[f"{row[0]}-{row[1]}" for row in WHOLE])
def test_each_case_of_a_file_that_is_refused_once(tmp_path: pathlib.Path, case: str, name: str, data: bytes, words: str) -> None:
    del case
    with pytest.raises(RejectedError) as refused:
        reading(tmp_path, name, data)
    assert words in str(refused.value)
