"""What a file is: by its first bytes, whatever it is called; a name is believed only where they leave it open."""

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
FORMATS = ("jsonl", "json", "csv", "tsv", "parquet", "arrow")
PACKED = (".gz", ".gzip", ".zst", ".zstd")
TABLES = {b"PAR1": "parquet", b"ARROW1\0\0": "arrow", b"\xff\xff\xff\xff": "arrow"}
FOREIGN = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook: unpack it, or save it as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save it as CSV",
    b"BZh": "compressed with bzip2: gzip and zstd are read",
    b"\xfd7zXZ\0": "compressed with xz: gzip and zstd are read",
    b"%PDF": "a PDF",
    b"SQLite format 3\0": "an SQLite database: export its table as CSV",
    b"ORC": "an ORC file: Parquet, Arrow, CSV and JSON are read",
    b"Obj\x01": "an Avro file: Parquet, Arrow, CSV and JSON are read",
    b"FEA1": "a Feather file of version 1: write it as version 2",
    b"PARE": "an encrypted Parquet file",
}
TAR, TAR_AT = b"ustar", 257
WRAPPER = re.compile(r'\s*\{\s*"((?:[^"\\]|\\.)*)"\s*:\s*\[\s*[{"\]]')


@dataclass(frozen=True, slots=True)
class Kind:
    """A format; of JSON Lines, whether its lines end with commas; of JSON, the name of the list that holds the rows."""

    format: str
    comma: bool = False
    within: str | None = None


def suffix_of(name: str) -> str:
    """The suffix that tells of the format, without that of a compression."""
    path = pathlib.PurePath(name.lower())
    return (path.with_suffix("") if path.suffix in PACKED else path).suffix


def table_of(head: bytes, name: str) -> str | None:
    """`parquet` or `arrow`, else None. Raises RejectedError for what is known to be something else."""
    for magic, what in FOREIGN.items():
        if head.startswith(magic):
            raise RejectedError(f"{name} is {what}.")
    if head[TAR_AT:].startswith(TAR):
        raise RejectedError(f"{name} is a tar archive: unpack it and name the folder.")
    return next((table for magic, table in TABLES.items() if head.startswith(magic)), None)


def kind_of(text: str, name: str, columns: Columns, *, is_whole: bool) -> Kind:
    """What text that begins so is; `is_whole`: it is all there is."""
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
    """Whether its first line is one whole object, as a line of JSON Lines is."""
    line = text.lstrip().split("\n", 1)[0].rstrip()
    try:
        value, end = first_value(line)
    except json.JSONDecodeError:
        return False
    return isinstance(value, dict) and end == len(line)


def _is_open(body: str) -> bool:
    """Whether a value goes on over its first line's end: it is whole, or breaks off with what was read."""
    try:
        first_value(body)
    except json.JSONDecodeError as error:
        return may_go_on(error, body)
    return True


def _spread(body: str, columns: Columns) -> Kind:
    """JSON over several lines, or too long for one: a list, an object that holds one, or objects one behind the other."""
    found = WRAPPER.match(body)
    if found and not _is_row_key(found[1], columns) and not _begins_rows(body, columns):
        return Kind("json", within=json.loads(f'"{found[1]}"'))
    is_line = "\n" not in body and not body.startswith("[")
    return Kind("jsonl" if is_line else "json")


def _begins_rows(body: str, columns: Columns) -> bool:
    """Whether the object that it begins with is a row, and none that holds rows: it ends, and others follow, or it is one."""
    try:
        value, end = first_value(body)
    except json.JSONDecodeError:
        return False
    return isinstance(value, dict) and (bool(body[end:].strip()) or not _holds_rows(value, next(iter(value)), columns))


def _only_list(value: dict[str, Any], columns: Columns) -> str | None:
    """The member that holds rows: the only list, in what is no row itself; of objects, or all that there is."""
    lists = [name for name, inner in value.items() if isinstance(inner, list)]
    return lists[0] if len(lists) == 1 and _holds_rows(value, lists[0], columns) else None


def _holds_rows(value: dict[str, Any], name: str, columns: Columns) -> bool:
    if any(_is_row_key(each, columns) for each in value):
        return False
    return len(value) == 1 or all(isinstance(item, dict) for item in value[name])


def _is_row_key(name: str, columns: Columns) -> bool:
    return name in (columns.text, "text", "custom_id", *CONVERSATIONS)
