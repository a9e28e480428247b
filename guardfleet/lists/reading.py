"""Read a list from CSV, JSON lines or plain lines, and say what is wrong in which line; write a list; compare two."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError

from guardfleet.errors import RejectedError
from guardfleet.lists.document import MOST_CHARACTERS, MOST_ENTRIES, MOST_PATTERNS, Entry
from guardfleet.lists.terms import MOST_ALIKE, Term, Terms

MOST_BYTES = 64 << 20
MOST_TOLD = 50
FORMATS, WRITTEN = ("csv", "jsonl", "txt"), ("csv", "jsonl")
DELIMITERS = ",;\t"  # of a CSV; what its header is separated by
LINE_END = re.compile(r"\r\n|\n|\r")
COLUMNS = ("kind", "value", "id", "anywhere", "exact", "decide", "categories")
BETWEEN = ";"  # categories of a CSV
TRUE, FALSE = ("true", "yes", "1"), ("false", "no", "0")


class ListError(RejectedError):
    """A list that cannot be used, with all its problems: the line of each, and the cause."""

    def __init__(self, problems: Sequence[tuple[int, str]]) -> None:
        self.problems = tuple(problems)
        told = [f"line {line}: {cause}" if line else cause for line, cause in self.problems[:MOST_TOLD]]
        left = len(self.problems) - len(told)
        super().__init__("\n".join([*told, *([f"and {left:,} more"] if left else [])]), param="list")


@dataclass(frozen=True, slots=True)
class Difference:
    """What becomes of a list's entries: new ones, those that are gone, and those of which something else is asked."""

    added: list[Entry]
    removed: list[Entry]
    changed: list[tuple[Entry, Entry]]


def format_of(name: str) -> str:
    """Return the format that a file's name says; lines of terms if it says none."""
    ending = name.rpartition(".")[2].lower()
    return {"csv": "csv", "jsonl": "jsonl", "ndjson": "jsonl"}.get(ending, "txt")


def read(text: str, form: str) -> list[Entry]:
    """Return the entries. Raises ListError with everything that is wrong."""
    if len(text.encode("utf-8", "surrogatepass")) > MOST_BYTES:
        raise ListError([(0, f"a list has at most {MOST_BYTES >> 20} MB")])
    entries: list[Entry] = []
    problems: list[tuple[int, str]] = []
    seen: dict[tuple[str, str], int] = {}
    lines: list[int] = []
    for line, given in _rows(text.removeprefix("\ufeff"), form):
        entry = given if isinstance(given, str) else _entry(given)
        cause = entry if isinstance(entry, str) else _twice(entry, line, seen)
        if cause is not None:
            problems.append((line, cause))
        elif isinstance(entry, Entry):
            entries.append(entry)
            lines.append(line)
    if problems:
        raise ListError(problems)
    _require_bounds(entries)
    terms = Terms(Term(at, one.value, one.anywhere, one.exact) for at, one in enumerate(entries) if one.kind == "term")
    if crowded := terms.crowded():
        cause = f"more than {MOST_ALIKE} terms are spelled like it, or end like it: a text could have to be compared with all"
        raise ListError([(lines[at], cause) for at in sorted(crowded)])
    return entries


def _require_bounds(entries: Sequence[Entry]) -> None:
    patterns = sum(entry.kind == "pattern" for entry in entries)
    if not entries:
        raise ListError([(0, "there is no entry in it")])
    if len(entries) > MOST_ENTRIES:
        raise ListError([(0, f"a list has at most {MOST_ENTRIES:,} entries: this one has {len(entries):,}")])
    if patterns > MOST_PATTERNS:
        raise ListError([(0, f"a list has at most {MOST_PATTERNS:,} patterns: this one has {patterns:,}")])


def write(entries: Iterable[Entry], form: str) -> Iterator[str]:
    """Yield the list's lines, which `read` reads again. Raises RejectedError for another format: lines of terms say too little."""
    if form not in WRITTEN:
        raise RejectedError(
            f"a list is written as {' or '.join(WRITTEN)}: other formats cannot say what its entries do.", param="format"
        )
    if form == "jsonl":
        for entry in entries:
            yield orjson.dumps(entry.model_dump(exclude_defaults=True)).decode() + "\n"
        return
    for row in [COLUMNS, *map(_cells, entries)]:
        line = io.StringIO()
        csv.writer(line, lineterminator="\r\n").writerow(row)  # with "\n" it would not quote a "\r"
        yield line.getvalue()


def difference(old: Iterable[Entry], new: Iterable[Entry]) -> Difference:
    """Compare two versions; an entry is the same if its kind and its value are."""
    before = {(entry.kind, entry.value): entry for entry in old}
    after = {(entry.kind, entry.value): entry for entry in new}
    return Difference(
        [entry for key, entry in after.items() if key not in before],
        [entry for key, entry in before.items() if key not in after],
        [(before[key], entry) for key, entry in after.items() if key in before and before[key] != entry],
    )


def _rows(text: str, form: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield each entry's line and what stands there, or why that is nothing."""
    if form == "csv":
        yield from _of_csv(text)
        return
    for line, given in enumerate(LINE_END.split(text), 1):
        if not given.strip():
            continue
        if form == "txt":
            yield line, {"value": given.strip()}
            continue
        try:
            row = orjson.loads(given)
        except orjson.JSONDecodeError as error:
            yield line, f"no JSON: {error.msg}"
            continue
        yield line, row if isinstance(row, dict) else "an entry is an object"


def _of_csv(text: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    head = LINE_END.split(text, maxsplit=1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=max(DELIMITERS, key=head.count))
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        if wrong := _wrong_of(header):
            yield 1, f"{wrong}; columns are {', '.join(COLUMNS)}"
            return
        before = reader.line_num
        for cells in reader:
            line, before = before + 1, reader.line_num
            if len(cells) > len(header):
                yield line, f"{len(cells)} fields, and {len(header)} columns"
            elif any(cell.strip() for cell in cells):
                yield line, _of_cells(dict(zip(header, cells, strict=False)))
    except csv.Error as error:
        yield reader.line_num, f"no CSV: {error}"


def _wrong_of(header: Sequence[str]) -> str | None:
    twice = [name for at, name in enumerate(header) if name in header[:at]]
    unknown = [name for name in header if name not in COLUMNS]
    if twice:
        return f"column {twice[0][:40]!r} stands there twice"
    if "value" not in header:
        return "there is no column `value`"
    return f"column {unknown[0][:40]!r} is unknown" if unknown else None


def _of_cells(cells: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {name: cell if name == "value" else cell.strip() for name, cell in cells.items()}
    given = {name: cell for name, cell in given.items() if cell}
    if "categories" in given:
        given["categories"] = tuple(part.strip() for part in given["categories"].split(BETWEEN) if part.strip())
    for name in ("anywhere", "exact"):
        word = given.get(name, "").lower()
        if word in (*TRUE, *FALSE):
            given[name] = word in TRUE
    return given


def _cells(entry: Entry) -> list[str]:
    flags = ["true" if flag else "" for flag in (entry.anywhere, entry.exact)]
    return [entry.kind, entry.value, entry.id, *flags, entry.decide or "", BETWEEN.join(entry.categories)]


def _entry(given: Mapping[str, Any]) -> Entry | str:
    try:
        return Entry.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        cause = first["msg"].removeprefix("Value error, ")
        if first["type"] == "string_too_long":
            cause = f"longer than {MOST_CHARACTERS:,} characters"
        elif first["type"] == "extra_forbidden":
            cause = "this is not known here"
        elif first["type"] == "missing":
            cause = "it is missing"
        return f"{place}: {cause}" if place else cause


def _twice(entry: Entry, line: int, seen: dict[tuple[str, str], int]) -> str | None:
    """Note the entry; return why it cannot stand beside an earlier one."""
    for key in ((entry.kind, entry.value), ("name", entry.name)):
        if (earlier := seen.setdefault(key, line)) != line:
            return f"the same stands in line {earlier}"
    return None
