"""Read CSV and similar formats: rows with exactly as many fields as the header, each with the physical lines it spans.

Nothing is dropped and nothing truncated: a row with another number of fields is refused, and so are all lines of a row whose quotes
are wrong. Reading continues behind them.
"""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from guardfleet.errors import LineError
from guardfleet.rows.columns import METADATA, Columns, beside, object_of
from guardfleet.rows.conversations import CONVERSATIONS
from producer.formats.header import Header
from producer.formats.stray_quotes import Suspects
from producer.layout import Item, Tally
from producer.text.lines import QUOTE, RETURN, Lines

TOO_LONG = "field larger"  # how the csv module's message for an overlong field begins


@dataclass
class Delimited:
    """The rows of one file, under its header."""

    header: Header
    columns: Columns
    lines: Lines
    max_text_bytes: int
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.suspects = Suspects(self.header, self.columns)
        self._offset = 0  # lines that were consumed without the parser

    def items(self) -> Iterator[Item]:
        """Yield every row in order, without blank lines."""
        csv.field_size_limit(max(csv.field_size_limit(), self.max_text_bytes + 1))
        source = iter(self.lines)
        for _ in range(self.header.lines):
            next(source, None)
        self._offset = self.tally.header = self.header.lines
        rows = csv.reader(source, delimiter=self.header.delimiter, strict=True)
        picked, n_fields = _picker(self.header.names, self.columns), len(self.header.names)
        last = self._offset
        while True:
            try:
                for found in rows:
                    first, last = last + 1, rows.line_num + self._offset
                    fields = [cell.replace(RETURN, "\r") for cell in found] if self.lines.has_returns else found
                    if self.lines.bad and (why := self.lines.first_bad(first, last)):
                        yield first, last, self._refused(first, last, *why)
                    elif len(fields) == n_fields:
                        if last > first:
                            self.suspects.look(first, last, fields)
                        self.tally.taken += last - first + 1
                        yield first, last, picked(first, fields)
                    elif _is_blank(fields):
                        self.tally.blank += last - first + 1
                    else:
                        yield first, last, self._refused(first, last, "invalid_csv", _miscounted(len(fields), n_fields))
            except csv.Error as error:
                first, last = last + 1, rows.line_num + self._offset
                last = self._behind(source, first, last, error)
                why = self.lines.first_bad(first, last) or ("invalid_csv", _explained(error, first, last))
                yield first, last, self._refused(first, last, *why)
            else:
                return

    def _refused(self, first: int, last: int, code: str, detail: str) -> LineError:
        self.tally.refused += last - first + 1
        return LineError(first, code, detail, last_line=last)

    def _behind(self, source: Iterator[str], first: int, last: int, error: csv.Error) -> int:
        """Return the last line of a row that cannot be parsed. An overlong row is skipped up to its closing quote, unheld."""
        if not str(error).startswith(TOO_LONG):
            return last
        is_open = (last > first) != (self.lines.line(last).count(QUOTE) % 2 == 1)
        while is_open and (line := next(source, None)) is not None:
            last += 1
            self._offset += 1
            is_open = line.count(QUOTE) % 2 == 0
        return last


def _picker(names: Sequence[str], columns: Columns) -> Callable[[int, list[str]], Any]:
    """Return a function that makes a row of a line's fields. Empty cells (except the text) and unnamed columns are left out."""
    at = {name: position for position, name in enumerate(names)}
    text, row_id, metadata = at.get(columns.text), at.get(columns.id), at.get(METADATA)
    lists = [(name, at[name]) for name in CONVERSATIONS if name in at and name not in (columns.text, columns.id)]
    others = [(name, at[name]) for name in columns.others(names)]
    beside_text = [(name, position) for position, name in enumerate(names) if name not in columns.used]

    def picked(line: int, fields: list[str]) -> Any:
        row: dict[str, Any] = {} if text is None else {"text": fields[text]}
        if row_id is not None and fields[row_id]:
            row["id"] = fields[row_id]
        extra: dict[str, Any] = {name: fields[position] for name, position in others if fields[position]} if others else {}
        for name, position in lists:
            if fields[position]:
                try:
                    held = columns.conversation(name, fields[position], has_text=_has_text(row))
                except ValueError as error:
                    return LineError(line, "wrong_type", str(error))
                (row if isinstance(held, list) else extra)[name] = held
        if row.get("text") == "" and any(name in row for name, _ in lists):
            del row["text"]
        if not columns.is_told and not _has_text(row):  # keep the other columns, so that what stands beside an empty text is seen
            row = {name: fields[position] for name, position in beside_text if fields[position]} | row
        if metadata is not None and fields[metadata]:
            extra = beside(extra, object_of(fields[metadata]))
        if extra:
            row[METADATA] = extra
        return row

    return picked


def _has_text(row: dict[str, Any]) -> bool:
    return bool(row.get("text", "").strip())


def _is_blank(fields: list[str]) -> bool:
    return not fields or (len(fields) == 1 and not fields[0].strip())


def _miscounted(found: int, n_fields: int) -> str:
    return f"too {'many' if found > n_fields else 'few'} fields: {found}, the header has {n_fields}"


def _explained(error: csv.Error, first: int, last: int) -> str:
    said = str(error)
    opened = f"a quote that line {first} opens"
    if said.startswith("unexpected end"):
        return f"{opened} is never closed"
    if said.startswith(TOO_LONG):
        return f"{opened} is not closed within the longest allowed text" if last > first else "a field is too long"
    if "expected after" in said:
        return f"{opened} is followed by text in line {last}" if last > first else "a closing quote is followed by text"
    return "a field without quotes contains a line feed" if "new-line" in said else said
