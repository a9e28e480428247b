"""The header of a CSV: its delimiter, and the names of its columns."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from guardfleet.errors import RejectedError
from guardfleet.rows.columns import Columns
from producer.naming import find

DELIMITERS = (",", ";", "\t", "|")
SEPARATOR = re.compile(r'"?sep=([^"\r\n])"?\s*', re.IGNORECASE)  # Excel's own first line


@dataclass(frozen=True, slots=True)
class Header:
    """The column names and the delimiter of a file. `lines`: how many physical lines end with the header."""

    names: tuple[str, ...]
    delimiter: str
    lines: int
    n_blank: int = 0  # blank ones among them


def header_of(lines: Sequence[str], name: str, asked: Columns, *, delimiter: str | None = None) -> Header:
    """Find the header in a file's first lines, with the delimiter that yields the asked column, or most columns.

    Raises RejectedError if there is none, or if two columns have the same name.
    """
    before = n_blank = next((n for n, line in enumerate(lines) if line.strip()), len(lines))
    named = SEPARATOR.fullmatch(lines[before]) if before < len(lines) else None
    if named:
        before += 1
    chosen = named[1] if named else delimiter
    found = [_parsed(lines[before:], mark, before, n_blank) for mark in ([chosen] if chosen else DELIMITERS)]
    headers = [header for header in found if header is not None]
    if not headers:
        raise RejectedError(f"{name} has no header: its first line must name the columns, within 64 KiB.")
    best = max(headers, key=lambda header: (find(asked.text, header.names) is not None, len(header.names)))
    if twice := [column for column, n in Counter(best.names).items() if n > 1 and column]:
        raise RejectedError(f"{name} has two columns named {twice[0]}: rename one of them.")
    return best


def _parsed(lines: Sequence[str], delimiter: str, before: int, n_blank: int) -> Header | None:
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        names = next(rows)
    except (StopIteration, csv.Error):
        return None
    return Header(tuple(name.strip().removeprefix("\ufeff") for name in names), delimiter, before + rows.line_num, n_blank)
