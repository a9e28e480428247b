"""Files from strangers: values that Python lacks, names in two spellings, words beside an empty text, lists in objects."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guardfleet.cli.output import printable
from guardfleet.errors import LineError, RejectedError
from guardfleet.rows.columns import Columns
from guardfleet.rows.payload import PayloadRow
from producer.readers import Line, Reading
from producer.sources import Inputs, expanded
from producer.text.encodings import encoding_of

MOST = 1 << 20
Read = Callable[..., list[Line]]


@pytest.fixture
def read(tmp_path: pathlib.Path) -> Read:
    def read(data: bytes | Any, name: str, **asked: Any) -> list[Line]:
        path = tmp_path / name
        if isinstance(data, bytes):
            path.write_bytes(data)
        else:
            pq.write_table(data, path)
        reading = Reading(columns=Columns.of(asked.get("text"), None, asked.get("kept")), encoding=asked.get("encoding"))
        return [row for _, row in Inputs(str(path), reading, max_text_bytes=MOST).rows()]

    return read


ODD = [
    pa.array([1_000_000_000_000_000_001, 0], pa.timestamp("ns")),
    pa.array([1, 0], pa.duration("ns")),
    pa.array([1, 0], pa.time64("ns")),
    pa.array([1 << 50, 0], pa.date64()),
    pa.array([10**15, 0], pa.timestamp("s")),
    pa.array([1, 0], pa.timestamp("us", tz="Mars/Phobos")),
    pa.array([b"\xff", b"a"]).view(pa.string()),
    pa.array([[({"a": 1}, 1)], []], pa.map_(pa.struct([("a", pa.int64())]), pa.int64())),
    pa.array([[("a", "x"), ("a", "y")], []], pa.map_(pa.string(), pa.string())),
]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: str(odd.type))
@pytest.mark.parametrize("kept", [None, "none"])
def test_no_value_of_the_metadata_costs_a_text_its_verdict(read: Read, odd: Any, kept: str | None) -> None:
    first, second = read(pa.table({"text": ["words", "more"], "m": odd}), "a.parquet", kept=kept)
    assert isinstance(first, PayloadRow)
    assert isinstance(second, PayloadRow)
    assert kept is not None or first.notes or (first.metadata or {}).get("m")


def test_a_cell_that_cannot_be_read_is_judged_by_nobody(read: Read) -> None:
    broken = pa.array([b"\xff", b"ok"]).view(pa.string())
    first, second = read(pa.table({"text": broken}), "a.parquet")
    assert isinstance(first, LineError)
    assert isinstance(second, PayloadRow)
    turn = [("role", "user"), ("content", "words"), ("content", "ok")]
    twice = pa.table({"messages": pa.array([[turn]], pa.list_(pa.map_(pa.string(), pa.string())))})
    (refused,) = read(twice, "b.parquet")
    assert isinstance(refused, LineError)
    (hidden,) = read(pa.table({"text": [""], "m": broken[:1]}), "c.parquet")
    assert isinstance(hidden, LineError)


def test_a_name_in_another_spelling_behind_the_first_rows_is_not_passed_over(read: Read) -> None:
    rows: list[dict[str, Any]] = [{"ID": i, "Text": f"text {i}"} for i in range(120)]
    rows += [{"ID": "a", "Text": "", "text": "words"}, {"ID": "b", "Text": "ok", "text": "words"}, {"id": "c", "Text": "ok"}]
    found = read("".join(json.dumps(row) + "\n" for row in rows).encode(), "a.jsonl")
    assert [row.code for row in found[-3:-1] if isinstance(row, LineError)] == ["repeated_key", "repeated_key"]
    assert isinstance(found[-1], PayloadRow)
    assert (found[-1].id, found[-1].metadata) == ("c", None)


@pytest.mark.parametrize(
    ("data", "name", "kept"),
    [
        (b"id,text,comment\n1,,words\n", "a.csv", "none"),
        (b"id,text,\n1,,words\n", "a.csv", None),
        (pa.table({"text": [""], "comment": ["words"]}), "a.parquet", "none"),
        (pa.table({"text": [""], "": ["words"]}), "a.parquet", None),
        (b'{"text": "", "key": {"x": "words"}}\n', "a.jsonl", None),
        (b'{"text": "", "url": ["words"]}\n', "a.jsonl", None),
        (b'{"custom_id": "a", "url": "/v1/moderations", "body": {"input": ""}, "comment": "words"}\n', "a.jsonl", None),
        (b'{"key": "a", "request": {"contents": [{"parts": [{"text": ""}]}]}, "comment": "words"}\n', "a.jsonl", None),
        (b'{"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": {"name": "words"}}}]}]}\n', "a.jsonl", None),
    ],
)
def test_words_beside_an_empty_text_refuse_the_row(read: Read, data: Any, name: str, kept: str | None) -> None:
    (row,) = read(data, name, kept=kept)
    assert isinstance(row, LineError)


def test_an_object_whose_first_member_is_a_list_is_a_row_where_it_has_a_text(read: Read) -> None:
    rows = [{"tags": ["a", "b"], "id": i, "text": f"text {i}"} for i in range(5)]
    together = "\n".join(json.dumps(row, indent=1) for row in rows).encode()
    assert [row.content for row in read(together, "a.json") if isinstance(row, PayloadRow)] == [f"text {i}" for i in range(5)]
    alone = json.dumps({"tags": ["a", "b"], "body": "words"}, indent=1).encode()
    (row,) = read(alone, "a.json", text="body")
    assert isinstance(row, PayloadRow)
    assert row.content == "words"
    with pytest.raises(RejectedError, match="Its columns: tags, comment"):
        read(b'{"tags": ["a", "b"], "comment": "words"}', "a.json")


def test_an_encoding_that_says_things_once_for_all_lines_is_not_read(read: Read) -> None:
    with pytest.raises(RejectedError, match="iso2022_kr"):
        read("id,text\n1,한국어\n2,한국어\n".encode("iso2022_kr"), "a.csv", encoding="iso2022_kr")
    for codec in ("gbk", "iso2022_jp", "euc_kr", "hz", "utf-7", "cp037", "utf-16-le"):
        assert encoding_of(b"", "a", codec).name


def test_verdicts_are_no_texts_in_any_format(read: Read) -> None:
    verdict = {"id": "a", "severity": "safe", "categories": "", "rationale": "none", "text": "words"}
    lines = [",".join(verdict), ",".join(verdict.values())]
    with pytest.raises(RejectedError, match="holds verdicts"):
        read("\n".join(lines).encode(), "a.csv")
    for data, name in ((json.dumps(verdict).encode(), "a.jsonl"), (pa.table({k: [v] for k, v in verdict.items()}), "a.parquet")):
        (row,) = read(data, name)
        assert isinstance(row, LineError)
        assert row.code == "already_judged"
    (again,) = read("\n".join(lines).encode(), "a.csv", text="text")
    assert isinstance(again, PayloadRow)


def test_names_that_are_none_and_in_no_encoding(tmp_path: pathlib.Path) -> None:
    with pytest.raises(RejectedError, match="name of an input is empty"):
        expanded([""])
    path = tmp_path / "caf\udce9.csv"
    path.write_text("id,text\n1,a\n2,b,c\n")
    (tmp_path / "b.csv").write_text("text\na\n")
    inputs = Inputs(str(path), max_text_bytes=MOST)
    assert (inputs.name, printable(inputs.name)) == ("caf\\udce9.csv", "caf\\udce9.csv")
    inputs.close()
    both = Inputs([str(path), str(tmp_path / "b.csv")], max_text_bytes=MOST)
    (refused,) = [row for _, row in both.rows() if isinstance(row, LineError)]
    assert "caf\\udce9.csv:3" in str(refused)
