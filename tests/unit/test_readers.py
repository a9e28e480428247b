"""Files as people have them: what is read, which lines are refused, and when a whole file is refused."""

import csv
import gzip
import hashlib
import io
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guardfleet.errors import LineError, RejectedError
from guardfleet.rows.columns import Columns
from guardfleet.rows.payload import PayloadRow
from producer.readers import AS_FOUND, Input, Reading

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MOST = 1 << 20
Read = Callable[..., tuple[list[PayloadRow], list[LineError], Input]]


@pytest.fixture
def read(tmp_path: pathlib.Path) -> Read:
    """Reads bytes under a name: rows taken, refusals, and the input, whose lines are all accounted for."""

    def found(data: bytes, name: str = "in.csv", reading: Reading = AS_FOUND) -> tuple[list[PayloadRow], list[LineError], Input]:
        path = tmp_path / name
        path.write_bytes(data)
        source = Input(str(path), reading, max_text_bytes=MOST)
        rows = [row for _, row in source.rows()]
        refused = [row for row in rows if isinstance(row, LineError)]
        taken = [row for row in rows if isinstance(row, PayloadRow)]
        tally = source.tally
        assert tally.taken == sum(row.lines for row in taken)
        assert tally.refused == sum(error.n_lines for error in refused)
        return taken, refused, source

    return found


def told(errors: list[LineError]) -> list[str]:
    return [str(error) for error in errors]


@pytest.mark.parametrize(
    ("data", "texts", "refused"),
    [
        (b"id,text\n1,ab\n2,ab, cd\n3,e\n", ["ab", "e"], ["line 3: too many fields: 3, the header has 2"]),
        (b"id,l,text\n1,x,ab\n2,x\n3\n", ["ab"], [f"line {n}: too few fields: {f}, the header has 3" for n, f in ((3, 2), (4, 1))]),
        (b'id,text\n1,a\n2,"open\n3,b\n4,c\n', ["a"], ["lines 3-5: a quote that line 3 opens is never closed"]),
        (b'id,text\n1,a\n2,"open\n3,b "q" c\n4,d\n', ["a", "d"],
         ["lines 3-4: a quote that line 3 opens is followed by text in line 4"]),
        (b'id,text\n1,"a \\"b\\" c"\n2,d\n3,"e\nf"\n4,g,h\n', ["d", "e\nf"],
         ["line 2: a closing quote is followed by text", "line 6: too many fields: 3, the header has 2"]),
        (b"id,text\n1,a\rb\n2,c\n", ["a\rb", "c"], []),
        (b'id,text\r\n1,a\rb\r\n2,"c\rd"\r\n3,\re\rf\r\r\n4,g,\rh\n', ["a\rb", "c\rd", "\re\rf"],
         ["line 5: too many fields: 3, the header has 2"]),
        (b'id,text\r1,"a\nb"\r2,c\r', ["a\nb", "c"], []),
        (b'"i""d\nx",text\r1,"a\nb"\r2,c\nd\r3,e', ["a\nb", "e"], ["line 3: a field without quotes contains a line feed"]),
        (b"id,text\n1,a\rcaf\xe9\n2,b\rc", ["b\rc"], ["line 2: the line is not UTF-8: byte 8 of it is 0xe9"]),
        (b"id,text\n1,caf\xe9\n2,ok\n", ["ok"], ["line 2: the line is not UTF-8: byte 6 of it is 0xe9"]),
        (b'id,text\n1,"x\ncaf\xe9\ny"\n2,ok\n', ["ok"], ["lines 2-4: the line is not UTF-8: byte 4 of it is 0xe9"]),
        (b"id,text\n1,\xed\xa0\x80\n", [], ["line 2: the line is not UTF-8: byte 3 of it is 0xed"]),
        (b"id,text\n1,a\0b\n\n  \n2,c", ["a\0b", "c"], []),
        (b"id,text\r1,a\r2,b\r", ["a", "b"], []),
        (b"\xef\xbb\xbfid,text\r\n1,a\r\n", ["a"], []),
        (b"id;text\n1;a\n2;b, c\n", ["a", "b, c"], []),
        (b"id|text\n1|a\n", ["a"], []),
        (b"id\ttext\n1\ta\n", ["a"], []),
        (b"sep=;\nid;text\n1;a\n", ["a"], []),
        (b"text\na\nb c\n", ["a", "b c"], []),
        ("id,text\n1,aé\n".encode("utf-16"), ["aé"], []),
        ("id,text\n1,aé\n".encode("utf-32"), ["aé"], []),
        ("id,text\n1,a\n".encode("utf-16") + b"\x00\xd8\x41\x00\n\0", ["a"], ["line 3: the line is not UTF-16-LE"]),
    ],
)  # fmt: skip
def test_a_table_is_read_or_refused_by_line_and_never_cut(read: Read, data: bytes, texts: list[str], refused: list[str]) -> None:
    taken, errors, _ = read(data)
    assert ([row.content for row in taken], [said.rsplit(" (", 1)[0] for said in told(errors)]) == (texts, refused)


def test_each_line_is_a_text_where_that_is_asked_for(read: Read) -> None:
    data = b'{"text": "no JSON"}\r\n\n  a, b\n\xff\n' + b"x" * (2 * MOST + 200_000) + b"\nlast"
    rows, refused, source = read(data, "in.txt", Reading("lines"))
    assert [row.content for row in rows] == ['{"text": "no JSON"}', "a, b", "last"]
    assert [(error.line, error.code) for error in refused] == [(4, "invalid_encoding"), (5, "too_large")]
    assert source.tally.lines == 6


def test_an_open_quote_over_a_long_file_loses_no_line(read: Read) -> None:
    n = 20_000
    lines = ["id,text", *(f"{i},a comment of some words about number {i}" for i in range(n))]
    lines[101] = '100,"never closed'
    taken, errors, source = read(("\n".join(lines) + "\n").encode())
    assert (len(taken), [(error.line, error.last_line) for error in errors]) == (100, [(102, n + 1)])
    assert source.tally.lines == n + 1


def test_a_field_over_the_limit_goes_on_to_its_closing_quote(read: Read) -> None:
    data = b'id,text\n1,a\n2,"' + b"word\n" * (MOST // 4) + b'end"\n3,b\n'
    taken, errors, source = read(data)
    assert [row.content for row in taken] == ["a", "b"]
    assert [(error.line, error.last_line) for error in errors] == [(3, data.count(b"\n") - 1)]
    assert source.tally.lines == data.count(b"\n")


def test_rows_that_a_quote_has_swallowed_are_noticed(read: Read) -> None:
    swallowed = b'id,text\n1,a\n2,"open\n3,a row\n4,and one"\n5,b\n'
    assert read(swallowed)[2].warnings == ["lines 3-5 are one row, but lines in its text look like rows: is there a stray quote?"]
    assert read(b'id,text\n1,"Dear all,\nthank you, and\nso on, yours"\n')[2].warnings == []


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", b"id,text,text\n1,a,b\n", "has two columns named text"),
        ("a.csv", b"id, text,text\n1,a,b\n", "has two columns named text"),
        ("a.csv", b"id,body\n1,a\n", "has no column named text. Its columns: id, body. Use --text-column body to take that one"),
        ("a.jsonl", b'{"id": 1, "comment_text": "a"}\n' * 3, "Use --text-column comment_text to take"),
        ("a.csv", b"id,t\xe9xt\n1,a\n", "the header of"),
        ("a.csv", "id,text\n1,a\n".encode("utf-16-le"), "looks like UTF-16-LE without a byte-order mark: try --encoding utf-16-le"),
        ("a.csv", b"PK\x03\x04rest", "is a ZIP archive or an Excel workbook"),
        ("a.json", b'[{"id": 1, "data": {"body": "a"}}]', "Its columns: id, data"),
        ("a.parquet", b"PAR1 and no more", "is not a complete Parquet file"),
        ("a.jsonl", b"no JSON\n" * 10, "is not JSON: none of its first 10 lines is"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_once(read: Read, name: str, data: bytes, said: str) -> None:
    with pytest.raises(RejectedError) as refused:
        read(data, name)
    assert said in str(refused.value)


ROWS = [{"id": f"r{i}", "text": f"text {i}"} for i in range(300)]
MANY = [
    {"id": f"r{i}", "text": hashlib.sha256(bytes([i % 256, i // 256])).hexdigest()} for i in range(8000)
]  # not small when packed
LONG = b"".join(json.dumps(row).encode() + b"\n" for row in MANY)
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)


WRITTEN = {
    "lines": LINES,
    "with a BOM": LINES.decode().encode("utf-8-sig"),
    "UTF-16": LINES.decode().encode("utf-16"),
    "CRLF": LINES.replace(b"\n", b"\r\n"),
    "CR": LINES.replace(b"\n", b"\r"),
    "commas behind": LINES.replace(b"\n", b",\n"),
    "array": json.dumps(ROWS).encode(),
    "pretty array": json.dumps(ROWS, indent=2).encode(),
    "pretty under data": json.dumps({"data": ROWS}, indent=1).encode(),
    "under rows": json.dumps({"rows": ROWS}).encode(),
    "pretty objects": b"\n".join(json.dumps(row, indent=1).encode() for row in ROWS),
    "array by lines": b"[\n" + LINES.replace(b"\n", b",\n")[:-2] + b"\n]\n",
    "gzip": gzip.compress(LINES),
    "gzip in two": gzip.compress(LINES[:1000]) + gzip.compress(LINES[1000:]),
    "zstd": zstd.compress(LINES),
    "zstd in two": zstd.compress(LINES[:1000]) + zstd.compress(LINES[1000:]),
    "pretty array, gzip": gzip.compress(json.dumps(ROWS, indent=2).encode()),
}


@pytest.mark.parametrize("data", WRITTEN.values(), ids=WRITTEN.keys())
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.data"])
def test_json_is_the_same_rows_however_it_is_written(read: Read, name: str, data: bytes) -> None:
    taken, errors, _ = read(data, name)
    assert not errors
    assert [(row.id, row.content) for row in taken] == [(row["id"], row["text"]) for row in ROWS]


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
@pytest.mark.parametrize("as_csv", [False, True])
def test_what_breaks_off_gives_the_rows_before_and_an_error(read: Read, pack: Callable[[bytes], bytes], as_csv: bool) -> None:
    file = io.StringIO()
    csv.writer(file).writerows([["id", "text"], *([row["id"], row["text"]] for row in MANY)])
    packed = pack(file.getvalue().encode() if as_csv else LONG)
    taken, errors, _ = read(packed[: len(packed) // 2], "a.gz")
    assert 0 < len(taken) < len(MANY)
    assert [row.content for row in taken] == [row["text"] for row in MANY[: len(taken)]]
    assert [error.code for error in errors] == ["damaged"]
    assert "ends in the middle" in errors[0].detail


def test_a_list_that_breaks_off_says_so(read: Read) -> None:
    taken, errors, _ = read(json.dumps(ROWS).encode()[:-9000], "a.json")
    assert [row.content for row in taken] == [row["text"] for row in ROWS[: len(taken)]]
    assert [(error.line, error.code) for error in errors] == [(len(taken) + 1, "damaged")]
    two = json.dumps({"a": [{"text": "x"}], "b": [{"text": "y"}]}, indent=1).encode()
    assert told(read(two, "a.json")[1]) == ["line 2: there is more beside a: it was not read (damaged)"]


def test_an_encoding_that_is_named_is_read_strictly(read: Read) -> None:
    data = "id,text\n1,今天天气很好\n2,茶\n".encode("gbk")
    asked = Reading(encoding="gbk")
    assert [row.content for row in read(data, "a.csv", asked)[0]] == ["今天天气很好", "茶"]
    assert [error.line for error in read(data, "a.csv")[1]] == [2, 3]
    broken = data.replace("茶".encode("gbk"), b"\xff\xff")
    assert told(read(broken, "a.csv", asked)[1]) == ["line 3: the line is not GBK: byte 3 of it is 0xff (invalid_encoding)"]
    lines = '{"text": "今天"}\n'.encode("gbk")
    assert [row.content for row in read(lines, "a.jsonl", asked)[0]] == ["今天"]
    assert [row.content for row in read(b"text\ncaf\xe9\n", "a.csv", Reading(encoding="windows-1252"))[0]] == ["café"]
    with pytest.raises(RejectedError, match="rot13"):
        read(data, "a.csv", Reading(encoding="rot13"))
    with pytest.raises(RejectedError, match="byte-order mark of UTF-16-LE, but --encoding is gbk"):
        read("text\nx\n".encode("utf-16"), "a.csv", asked)


def test_other_columns_are_metadata_by_one_rule_in_all_formats(read: Read, tmp_path: pathlib.Path) -> None:
    row = {"key": "k1", "body": "hello", "lang": "en", "n": "7", "metadata": '{"a": 1}'}
    table = pa.table({name: [value] for name, value in row.items()})
    pq.write_table(table, tmp_path / "t.parquet")
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    buffer = io.StringIO()
    csv.writer(buffer).writerows([row.keys(), row.values()])
    files = {
        "a.csv": buffer.getvalue().encode(),
        "a.jsonl": json.dumps(row).encode(),
        "a.json": json.dumps([row]).encode(),
        "a.parquet": (tmp_path / "t.parquet").read_bytes(),
        "a.feather": (tmp_path / "t.arrow").read_bytes(),
    }
    for kept, expected in (
        (None, {"lang": "en", "n": "7", "a": 1}), ("lang", {"lang": "en", "a": 1}), ("none", {"a": 1})
    ):  # fmt: skip
        for name, data in files.items():
            taken, errors, _ = read(data, name, Reading(columns=Columns.of("body", "key", kept)))
            assert not errors
            assert [(row.id, row.content, row.metadata) for row in taken] == [("k1", "hello", expected)], name


@pytest.mark.parametrize("option", [("nope", None, None), ("body", "nope", None), ("body", None, "nope")])
@pytest.mark.parametrize(("name", "data"), [("a.csv", b"key,body\n1,x\n"), ("a.jsonl", b'{"key": 1, "body": "x"}\n')])
def test_a_column_that_is_not_there_refuses_the_file(read: Read, name: str, data: bytes, option: tuple[Any, ...]) -> None:
    with pytest.raises(RejectedError, match=r"has no column named nope\. Its columns: key, body"):
        read(data, name, Reading(columns=Columns.of(*option)))


def test_a_key_that_counts_and_comes_twice_refuses_its_line(read: Read) -> None:
    asked = Reading(columns=Columns.of("body", None, None))
    data = b'{"id": 1, "body": "a", "url": "u"}\n{"id": 2, "body": "b", "body": "c"}\n'
    taken, errors, _ = read(data, "a.jsonl", asked)
    assert [(row.content, row.metadata) for row in taken] == [("a", {"url": "u"})]
    assert [(error.line, error.code) for error in errors] == [(2, "repeated_key")]


def test_a_damaged_part_of_a_table_costs_its_own_rows(read: Read, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "t.parquet"
    rows = [f"text {i}" for i in range(40)]
    pq.write_table(pa.table({"text": rows}), path, row_group_size=10, compression="zstd", use_dictionary=False)
    place = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[place : place + 30] = b"\xff" * 30
    taken, errors, _ = read(bytes(data), "d.parquet")
    assert [row.content for row in taken] == rows[:10] + rows[20:]
    assert [(error.line, error.last_line, error.code) for error in errors] == [(11, 20, "damaged")]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())])
def test_every_kind_of_text_column_is_read(read: Read, tmp_path: pathlib.Path, kind: Any) -> None:
    pq.write_table(pa.table({"text": pa.array(["a", None, "c"]).cast(kind)}), tmp_path / "t.parquet")
    taken, errors, _ = read((tmp_path / "t.parquet").read_bytes(), "a.parquet")
    assert ([row.content for row in taken], [error.line for error in errors]) == (["a", "c"], [2])


def test_a_text_column_that_holds_no_text_and_doubled_columns_refuse_the_file(read: Read, tmp_path: pathlib.Path) -> None:
    for table, said in (
        (pa.table({"text": [["a"]]}), "holds list"),
        (pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), "two columns named text"),
    ):
        pq.write_table(table, tmp_path / "t.parquet")
        with pytest.raises(RejectedError, match=said):
            read((tmp_path / "t.parquet").read_bytes(), "a.parquet")
