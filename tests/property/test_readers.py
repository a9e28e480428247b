"""Whatever a file is and whatever happened to it: every line is accounted for, and only what somebody wrote is taken."""

import csv
import io
import json
import pathlib
import re
import tempfile
from collections.abc import Callable
from itertools import pairwise

from hypothesis import assume, given
from hypothesis import strategies as st

from guardfleet.errors import LineError, RejectedError
from guardfleet.rows.columns import Columns
from guardfleet.rows.payload import PayloadRow
from producer.readers import Input, Line, Reading
from producer.text.lines import line_end_of, row_end_of

MOST = 1 << 16
WORDS = st.text('ab1 ,;"\t\n\ré漢\u2028|\\', max_size=12)
TEXTS = st.lists(WORDS, max_size=8)
Damage = Callable[[bytes], bytes]


def cut(at: float) -> Damage:
    return lambda data: data[: int(len(data) * at)]


def put(at: float, what: bytes) -> Damage:
    return lambda data: data[: int(len(data) * at)] + what + data[int(len(data) * at) :]


def flip(at: float, bits: int) -> Damage:
    def flipped(data: bytes) -> bytes:
        place = int((len(data) - 1) * at)
        return data[:place] + bytes([data[place] ^ bits]) + data[place + 1 :] if data else data

    return flipped


SHARES = st.floats(0, 1)
SIGNS = st.sampled_from([b'"', b",", b"\n", b"\r", b"\xff", b"\xed\xa0\x80", b"\0", b'","', b'"\n'])
DAMAGES = st.lists(
    st.one_of(st.builds(cut, SHARES), st.builds(put, SHARES, SIGNS), st.builds(flip, SHARES, st.integers(1, 255))), max_size=3
)


def read(data: bytes, suffix: str, reading: Reading) -> tuple[list[tuple[int, Line]], Input]:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"texts{suffix}"
        path.write_bytes(data)
        source = Input(str(path), reading, max_text_bytes=MOST)
        return list(source.rows()), source


def as_read(data: bytes, source: Input, end_of: Callable[[bytes], bytes]) -> tuple[str, int]:
    """The whole file as text in the encoding that was decided on, and how many lines it has by their end."""
    assert source.encoding is not None
    name = source.encoding.name
    text = data[source.encoding.bom_bytes :].decode(name, "replace" if name.startswith("utf-16") else "surrogateescape")
    end = end_of(text.encode("utf-8", "surrogateescape")).decode()
    return text, text.count(end) + (not text.endswith(end) if text else 0)


def check_numbers(rows: list[tuple[int, Line]], source: Input, n_lines: int) -> None:
    """The lines of the file are its header, blank ones, and those of rows and refusals, each in one of them."""
    tally = source.tally
    assert tally.lines == n_lines
    covered = [(n, n + (row.n_lines if isinstance(row, LineError) else row.lines)) for n, row in rows]
    assert all(end <= start for (_, end), (start, _) in pairwise(covered))
    assert all(tally.header < n and end <= n_lines + 1 for n, end in covered)
    assert sum(end - n for n, end in covered) == tally.taken + tally.refused
    assert sum(row.n_lines for _, row in rows if isinstance(row, LineError)) == tally.refused


@given(
    TEXTS,
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["utf-8", "utf-8-sig", "gbk", "utf-16"]),
    DAMAGES,
)
def test_every_line_of_a_table_is_accounted_for_and_no_text_is_made_up(
    texts: list[str], delimiter: str, end: str, quoting: int, encoding: str, damages: list[Damage]
) -> None:
    file = io.StringIO(newline="")
    rows = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    rows.writerow(["id", "text", "lang"])
    rows.writerows([f"r{i}", text, "xx"] for i, text in enumerate(texts))
    data = file.getvalue().encode(encoding, "replace")
    for damage in damages:
        data = damage(data)
    asked = Reading("csv", encoding if encoding == "gbk" else None)
    try:
        found, source = read(data, ".csv", asked)
    except RejectedError:
        assume(damages)
        return
    written, n_lines = as_read(data, source, row_end_of)
    check_numbers(found, source, n_lines)
    taken = [row.content for _, row in found if isinstance(row, PayloadRow)]
    if not damages and encoding != "gbk":
        assert taken == texts
    edge = f"[\r\n{re.escape(delimiter)}]"
    for text in taken:
        assert isinstance(text, str)
        assert not re.search("[\ud800-\udfff]", text)
        field = "|".join(re.escape(form) for form in {text, '"' + text.replace('"', '""') + '"'})
        assert re.search(f"(^|{edge}|\ufeff)({field})($|{edge})", written), "no whole field of the file"


@given(TEXTS, st.sampled_from(["utf-8", "utf-8-sig", "gbk", "utf-16"]), st.booleans(), DAMAGES)
def test_every_line_of_json_lines_is_accounted_for_and_no_text_is_made_up(
    texts: list[str], encoding: str, in_ascii: bool, damages: list[Damage]
) -> None:
    lines = [json.dumps({"id": f"r{i}", "text": text, "lang": "xx"}, ensure_ascii=in_ascii) + "\n" for i, text in enumerate(texts)]
    data = "".join(lines).encode(encoding, "replace")
    for damage in damages:
        data = damage(data)
    try:
        found, source = read(data, ".jsonl", Reading("jsonl", encoding if encoding == "gbk" else None))
    except RejectedError:
        assume(damages)
        return
    written, n_lines = as_read(data, source, line_end_of)
    check_numbers(found, source, n_lines)
    whole = written.split("\n" if "\n" in written else "\r")
    for number, row in found:
        if isinstance(row, PayloadRow):
            line = whole[number - 1].lstrip("\r").removeprefix("\ufeff").encode("utf-8", "surrogateescape")
            value = json.loads(line.decode("utf-8", "surrogatepass"))  # half a pair is taken as such, written out or escaped
            assert row.content == (value if isinstance(value, str) else value["text"])


DEEP = "[" * 3000 + "]" * 3000
ODD = st.sampled_from(["1", "1" * 5000, DEEP, '{"a":' * 3000 + "1" * 5000 + "}" * 3000, '"]}{["'])
LISTS = st.sampled_from([("[", ",", "]"), ("[\n", ",\n", "\n]\n"), ('{"data": [', ", ", "]}"), ("", "\n", "\n")])


@given(st.lists(st.tuples(WORDS, ODD), max_size=5), LISTS, st.sampled_from([".json", ".jsonl", ".csv", ""]), DAMAGES)
def test_json_that_nobody_named_is_found_out_and_every_element_accounted_for(
    rows: list[tuple[str, str]], written: tuple[str, str, str], suffix: str, damages: list[Damage]
) -> None:
    start, between, end = written
    data = (start + between.join(f'{{"text": {json.dumps("x" + text)}, "n": {{"n": {n}}}}}' for text, n in rows) + end).encode()
    for damage in damages:
        data = damage(data)
    try:
        found, source = read(data, suffix, Reading())
    except RejectedError:
        assume(damages)
        return
    if source.how.startswith("json,"):
        assert [number for number, _ in found] == list(range(1, source.tally.lines + 1))
        assert source.tally.refused == sum(isinstance(row, LineError) for _, row in found)
    else:
        check_numbers(found, source, as_read(data, source, row_end_of if source.how[:3] in ("csv", "tsv") else line_end_of)[1])
    if rows and not damages:
        assert [row.content for _, row in found if isinstance(row, PayloadRow)] == [f"x{text}" for text, _ in rows]


@given(TEXTS, st.sampled_from(",;\t|"), st.sampled_from([".csv", ".tsv", ".jsonl", ""]), DAMAGES)
def test_a_table_that_nobody_named_is_found_out_and_every_line_accounted_for(
    texts: list[str], delimiter: str, suffix: str, damages: list[Damage]
) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter).writerows([["id", "text"], *([f"r{i}", text] for i, text in enumerate(texts))])
    data = file.getvalue().encode()
    for damage in damages:
        data = damage(data)
    try:
        found, source = read(data, suffix, Reading())
    except RejectedError:
        return  # as damage, or the name, has it
    if not source.how.startswith("json,"):
        check_numbers(found, source, as_read(data, source, row_end_of if source.how[:3] in ("csv", "tsv") else line_end_of)[1])


@given(
    st.lists(st.sampled_from(["text", "id", "body", "lang", " Text", "messages"]), min_size=1, max_size=4), st.sampled_from(",;\t|")
)
def test_a_delimiter_is_found_from_any_header_that_names_the_text(names: list[str], delimiter: str) -> None:
    assume(len({name.strip().lower() for name in names}) == len(names) and {"text", " Text"} & set(names))
    data = delimiter.join(names) + "\n" + delimiter.join("" if name == "messages" else "x" for name in names) + "\n"
    found, _ = read(data.encode(), ".csv", Reading(columns=Columns()))
    assert [row.content for _, row in found if isinstance(row, PayloadRow)] == ["x"]
