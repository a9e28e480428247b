"""Detect a file's format from its first bytes, whatever its name; the name only decides where they are ambiguous."""

import json
import pathlib
import re
from dataclasses import dataclass
from typing import Any

from guardfleet.errors import RejectedError
from guardfleet.rows.columns import Columns
from guardfleet.rows.conversations import CONVERSATIONS
from guardfleet.rows.json_text import first_value
from producer.formats.json_values import may_go_on

SUFFIXES = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    ".csv": "csv",
    **dict.fromkeys((".tsv", ".tab"), "tsv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".arrow", ".feather", ".arrows"), "arrow"),
}
FORMATS = ("jsonl", "json", "csv", "tsv", "lines", "parquet", "arrow")  # lines: each is a text; only where it is asked for
PACKED = (".gz", ".gzip", ".zst", ".zstd")
TABLES = {b"PAR1": "parquet", b"ARROW1\0\0": "arrow", b"\xff\xff\xff\xff": "arrow"}
FOREIGN = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook: unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save it as CSV",
    b"BZh": "compressed with bzip2: decompress it, or use gzip or zstd",
    b"\xfd7zXZ\0": "compressed with xz: decompress it, or use gzip or zstd",
    b"%PDF": "a PDF",
    b"SQLite format 3\0": "an SQLite database: export its table as CSV",
    b"ORC": "an ORC file: use Parquet, Arrow, CSV or JSON",
    b"Obj\x01": "an Avro file: use Parquet, Arrow, CSV or JSON",
    b"FEA1": "a Feather file of version 1: write it as version 2",
    b"PARE": "an encrypted Parquet file",
}
TAR, TAR_AT = b"ustar", 257
WRAPPER = re.compile(r'\s*\{\s*"((?:[^"\\]|\\.)*)"\s*:\s*\[\s*[{"\]]')


@dataclass(frozen=True, slots=True)
class Kind:
    """A format. `comma`: JSON Lines whose lines end with commas; `within`: the JSON member with the list of rows."""

    format: str
    comma: bool = False
    within: str | None = None


def suffix_of(name: str) -> str:
    """Return the suffix that names the format, without that of a compression."""
    path = pathlib.PurePath(name.lower())
    return (path.with_suffix("") if path.suffix in PACKED else path).suffix


def table_of(head: bytes, name: str) -> str | None:
    """Return `parquet` or `arrow`, else None. Raises RejectedError for formats known to be unsupported."""
    for magic, what in FOREIGN.items():
        if head.startswith(magic):
            raise RejectedError(f"{name} is {what}.")
    if head[TAR_AT:].startswith(TAR):
        raise RejectedError(f"{name} is a tar archive: unpack it and give the folder.")
    return next((table for magic, table in TABLES.items() if head.startswith(magic)), None)


def kind_of(text: str, name: str, columns: Columns, *, is_whole: bool) -> Kind:
    """Return the kind of a file whose text begins so; `is_whole`: this is all of it."""
    suffix = SUFFIXES.get(suffix_of(name))
    body = text.lstrip().removeprefix("\ufeff")
    if body[:1] in ("{", "["):
        return _json(body, columns, is_whole=is_whole)
    if suffix in ("csv", "tsv") and body:
        return Kind(suffix)
    if not body or suffix == "jsonl" or _is_string(body):
        return Kind("jsonl")
    return Kind("csv")


def _is_string(body: str) -> bool:
    try:
        return isinstance(json.loads(body.split("\n", 1)[0]), str) and '","' not in body.split("\n", 1)[0]
    except ValueError:
        return False


def _json(body: str, columns: Columns, *, is_whole: bool) -> Kind:
    line, more = body.split("\n", 1) if "\n" in body else (body, "")
    line = line.strip()
    try:
        value, end = first_value(line)
    except json.JSONDecodeError as error:
        if line.startswith("["):
            return Kind("jsonl" if _is_object(more) else "json")
        goes_on = error.pos >= len(line) if more else not is_whole
        return _spread(body, columns) if goes_on and _is_open(body) else Kind("jsonl")
    rest = line[end:].strip()
    if rest:
        return Kind("jsonl", comma=True) if rest == "," else Kind("json")
    if isinstance(value, list):
        return Kind("jsonl" if more.strip() else "json")
    within = None if more.strip() or not is_whole else _only_list(value, columns)
    return Kind("json", within=within) if within else Kind("jsonl")


def _is_object(text: str) -> bool:
    """Return whether the first line is one complete object, as in JSON Lines."""
    line = text.lstrip().split("\n", 1)[0].rstrip()
    try:
        value, end = first_value(line)
    except json.JSONDecodeError:
        return False
    return isinstance(value, dict) and end == len(line)


def _is_open(body: str) -> bool:
    """Return whether a value continues beyond its first line: it is complete, or cut off by the end of what was read."""
    try:
        first_value(body)
    except json.JSONDecodeError as error:
        return may_go_on(error, body)
    return True


def _spread(body: str, columns: Columns) -> Kind:
    """Return the kind of JSON spread over lines, or too long for one: a list, an object with a list, or several objects."""
    found = WRAPPER.match(body)
    if found and not _is_row_key(found[1], columns) and not _begins_rows(body, columns):
        return Kind("json", within=json.loads(f'"{found[1]}"'))
    is_line = "\n" not in body and not body.startswith("[")
    return Kind("jsonl" if is_line else "json")


def _begins_rows(body: str, columns: Columns) -> bool:
    """Return whether the first object is a row itself: others follow it, or it does not hold rows."""
    try:
        value, end = first_value(body)
    except json.JSONDecodeError:
        return False
    return isinstance(value, dict) and (bool(body[end:].strip()) or not _holds_rows(value, next(iter(value)), columns))


def _only_list(value: dict[str, Any], columns: Columns) -> str | None:
    """Return the member that holds the rows: the only list of an object that is no row, of objects or the only member."""
    lists = [name for name, inner in value.items() if isinstance(inner, list)]
    return lists[0] if len(lists) == 1 and _holds_rows(value, lists[0], columns) else None


def _holds_rows(value: dict[str, Any], name: str, columns: Columns) -> bool:
    if any(_is_row_key(each, columns) for each in value):
        return False
    return len(value) == 1 or all(isinstance(item, dict) for item in value[name])


def _is_row_key(name: str, columns: Columns) -> bool:
    return name in (columns.text, "text", "custom_id", *CONVERSATIONS)
