"""Which files an input has: folders and patterns never skip one silently; and the names that encodings may have."""

import gzip
import json
import os
import pathlib

import pytest

from guardfleet.cli.commands.evaluate import label_of
from guardfleet.cli.labelled_rows import LeftOut, labelled
from guardfleet.client.protocol import CHUNK_BYTES, _row_lines
from guardfleet.errors import LineError, RejectedError
from guardfleet.rows.payload import PayloadRow
from guardfleet.settings import load_settings
from guardfleet.verdicts.export import ready
from producer.sources import Inputs, expanded
from producer.text.encodings import MARK, encoding_of

MOST = 1 << 20


def folder_of(path: pathlib.Path) -> pathlib.Path:
    """A folder with one of each."""
    (path / "deep" / "deeper").mkdir(parents=True)
    (path / ".git").mkdir()
    for name in ("a.jsonl", "deep/b.csv", "deep/deeper/c.json.gz", "_d.jsonl", ".e.csv", ".git/f.json", "notes.md", "_SUCCESS"):
        (path / name).write_bytes(gzip.compress(b'["c"]') if name.endswith("gz") else b'"x"\n')
    (path / "linked").symlink_to(path / "deep")
    return path


def named(paths: list[str], folder: pathlib.Path) -> list[str]:
    return [str(pathlib.Path(path).relative_to(folder)) for path in paths]


def test_a_folder_names_what_it_leaves_out(tmp_path: pathlib.Path) -> None:
    folder = folder_of(tmp_path / "in")
    taken, left_out = expanded([str(folder)])
    assert named(taken, folder) == ["a.jsonl", "deep/b.csv", "deep/deeper/c.json.gz"]
    assert named(left_out, folder) == [".e.csv", ".git/f.json", "_d.jsonl", "linked", "notes.md"]


@pytest.mark.parametrize(
    ("pattern", "files", "others"),
    [
        ("*", ["_SUCCESS", "_d.jsonl", "a.jsonl", "deep/b.csv", "deep/deeper/c.json.gz", "linked/b.csv", "linked/deeper/c.json.gz",
               "notes.md"], [".e.csv", ".git/f.json"]),
        ("d*", ["deep/b.csv", "deep/deeper/c.json.gz"], []),
        ("**/*.csv", ["deep/b.csv", "linked/b.csv"], [".e.csv"]),
        ("deep/**", ["deep/b.csv", "deep/deeper/c.json.gz"], []),
    ],
)  # fmt: skip
def test_a_pattern_takes_the_folders_that_it_matches(
    tmp_path: pathlib.Path, pattern: str, files: list[str], others: list[str]
) -> None:
    folder = folder_of(tmp_path / "in")
    taken, left_out = expanded([str(folder / pattern)])
    assert sorted(named(taken, folder)) == files
    assert named(left_out, folder) == others


def test_a_codec_that_reads_no_text_is_refused_by_name() -> None:
    for name in ("punycode", "idna", "undefined", "hex_codec"):
        with pytest.raises(RejectedError, match="is unknown"):
            encoding_of(b"text\nx\n", "a.csv", name)
    with pytest.raises(RejectedError, match="has no byte-order mark: give --encoding utf-16-le or utf-16-be"):
        encoding_of("text\nx\n".encode("utf-16-le"), "a.csv", "utf-16")
    found = encoding_of("text\n".encode("utf-16"), "a.csv", "utf-16")
    assert b"".join(found.chunks(iter(("text\n".encode("utf-16"),)))).decode() == "text\n"


@pytest.mark.parametrize("codec", ["gbk", "cp037", "utf-7", "iso2022_jp", "big5hkscs", "utf-16-le", "utf-32"])
def test_whatever_bytes_a_codec_meets_cost_their_line_at_most(codec: str) -> None:
    found = encoding_of("\ufeff".encode(codec) if codec == "utf-32" else b"ab", "a.csv", codec)
    for data in (bytes(range(256)), b"\\xff\\N{x}\n", b"+-\xe9~{\n"):
        for line in b"".join(found.chunks(iter((bytes(found.bom_bytes) + data,)))).split(b"\n"):
            try:
                found.decode(line)
            except ValueError:
                line.decode(found.codec, MARK)


def test_files_folders_and_patterns_are_one_input_with_numbers_that_go_on(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.csv").write_text("id,text\n1,a\n2,b,c\n")
    (folder / "b.jsonl").write_text('{"id": 3, "text": "d"}\n\n{bad\n')
    (folder / "deep" / "c.json.gz").write_bytes(gzip.compress(b'[{"id": 4, "text": "e"}]'))
    (folder / "notes.md").write_text("x")
    (folder / "_SUCCESS").write_text("")
    for sources in ([str(folder)], [str(folder / "a.csv"), str(folder / "*.jsonl"), str(folder / "deep")]):
        inputs = Inputs(sources, max_text_bytes=MOST)
        rows = list(inputs.rows())
        assert [n for n, _ in rows] == [2, 3, 4, 6, 7]
        assert [row.content for _, row in rows if isinstance(row, PayloadRow)] == ["a", "d", "e"]
        assert [str(row) for _, row in rows if isinstance(row, LineError)] == [
            f"{folder}/a.csv:3: too many fields: 3, the header has 2 (invalid_csv)",
            next(str(row) for n, row in rows if n == 6),
        ]
        assert str(rows[3][1]).startswith(f"{folder}/b.jsonl:3: ")
        assert next(inputs.rows())[0] == 2  # again, as for a request that is sent again
    assert "left out: notes.md" in Inputs(str(folder), max_text_bytes=MOST).said
    with pytest.raises(RejectedError, match="no file matches"):
        Inputs([str(folder / "*.csvx")], max_text_bytes=MOST)
    with pytest.raises(RejectedError, match="is given twice"):
        Inputs([str(folder), str(folder / "a.csv")], max_text_bytes=MOST)


def test_a_damaged_range_of_a_billion_rows_is_not_held_at_once() -> None:
    rows = [(1, LineError(1, "damaged", "x", last_line=10**9)), (10**9 + 1, PayloadRow("a", "x"))]
    lines = _row_lines(iter(rows))
    assert all(len(line) <= CHUNK_BYTES for line, _ in zip(lines, range(5), strict=False))
    few = [(3, PayloadRow("a", "x")), (6, PayloadRow("b", "y"))]
    sent = b"".join(_row_lines(iter(few)))
    assert [at for at, line in enumerate(sent.split(b"\n"), 1) if line] == [3, 6]


def test_a_row_with_odd_metadata_and_no_label_is_passed_over_by_evaluate(tmp_path: pathlib.Path) -> None:
    rows = [{"text": "a", "metadata": [1]}, {"text": "b", "metadata": 5}, {"text": "c", "metadata": {"label": "unsafe"}}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs, left_out = Inputs([str(tmp_path / "in.jsonl")], max_text_bytes=1000), LeftOut("true and false")
    found = list(labelled(inputs, load_settings(engine="instant"), None, label_of, left_out))
    assert [(row.content, label) for row, label, _ in found] == [("c", True)]
    assert left_out.counts == {"unlabelled": 2, "label_unknown": 0}


def test_what_a_killed_export_left_is_in_nobodys_way(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out.jsonl"
    for left in (f"out.jsonl.part{os.getpid()}", "out.jsonl.part1"):
        (tmp_path / left).touch()
    assert ready(str(out)) == "jsonl"
    assert len(list(tmp_path.iterdir())) == 2


DEEP = "[" * 5000 + "]" * 5000
LONG = "1" * 5000


@pytest.mark.parametrize("odd", [DEEP, LONG, f'"]}}{{[", {DEEP}'.join("[]"), '{"a":' * 5000 + LONG + "}" * 5000])
@pytest.mark.parametrize(
    ("start", "between", "end"), [("[", ",", "]"), ("[\n", ",\n", "\n]"), ('{"data": [', ", ", "]}"), ("", "\n", "")]
)
def test_depth_and_digits_cost_no_text_however_json_is_written(
    tmp_path: pathlib.Path, odd: str, start: str, between: str, end: str
) -> None:
    rows = ['{"text": "a"}', f'{{"text": "b", "n": {odd}}}', '{"text": "c"}']
    for order in (rows, rows[1:] + rows[:1]):
        path = tmp_path / "in.json"
        path.write_text(start + between.join(order) + end)
        found = [row.content for _, row in Inputs(str(path), max_text_bytes=MOST).rows() if isinstance(row, PayloadRow)]
        assert sorted(map(str, found)) == ["a", "b", "c"]


LONG_ELEMENTS = (
    json.dumps({"text": 'a\\"]}[{' * 60_000}),
    "[" + '"]", {"[": "\\\\"}, ' * 40_000 + "1]",
    json.dumps("\\" * 300_001),
)


@pytest.mark.parametrize("odd", LONG_ELEMENTS)
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"data": [', "]}"), ("", "")])
def test_an_element_that_is_too_long_costs_no_other(tmp_path: pathlib.Path, odd: str, start: str, end: str) -> None:
    path = tmp_path / "in.json"
    path.write_text(f'{start}{{"text": "a"}}, {odd},\n{{"text": "c"}}\n, {odd}{end}')
    found = [row for _, row in Inputs(str(path), max_text_bytes=10).rows()]
    assert [row.code if isinstance(row, LineError) else row.content for row in found] == ["a", "too_large", "c", "too_large"]
