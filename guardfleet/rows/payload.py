"""The texts of a shard as JSON. A row with bad metadata costs no other row its verdict, nor the shard.

Intake limits how deep metadata may be nested. Blobs of older versions can be nested deeper than the interpreter can read, which
also depends on the depth of the caller's stack. Such metadata is left out, and the text is judged as any other.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from guardfleet.rows.metadata import MAX_LEVELS, NOTES

LEFT_OUT = f"metadata is nested deeper than {MAX_LEVELS} levels: it is left out"
ERASED = "erased on request"
MARGIN = 32  # spare levels, since what can be written here may have to be written deeper in a stack
TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)
ROW, FIELD = 1, 2  # depths: a list of lists


@dataclass(slots=True)  # frozen would make construction four times slower; nobody changes a row
class PayloadRow:
    """One text as it waits for a worker. `content` is a string or a list of {"role", "content"} messages.

    `notes`: what was left out of the metadata, for the verdict's evidence. `lines`: how many of the input's lines the row spans,
    known during intake only.
    """

    id: str
    content: str | list[dict[str, str]]
    metadata: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    lines: int = 1

    @property
    def is_erased(self) -> bool:
        """Whether it stands for a text that was erased: no input can have no messages, and any version refuses to judge that."""
        return self.content == []


def erased() -> PayloadRow:
    """Return what is left of a row that was erased."""
    return PayloadRow("", [], None, (ERASED,))


def dumped(rows: Sequence[PayloadRow]) -> str:
    """Return the rows as JSON; metadata that cannot be written is left out, with a note.

    Notes travel inside the metadata: workers of the previous version know rows of three values only.
    """
    try:
        return _json([[row.id, row.content, _noted(row)] for row in rows])
    except RecursionError:
        bare = [row if is_writable(row.metadata) else replace(row, metadata=None, notes=(*row.notes, LEFT_OUT)) for row in rows]
        return _json([[row.id, row.content, _noted(row)] for row in bare])


def loaded(plain: str) -> list[PayloadRow]:
    """Return the rows from JSON, the inverse of `dumped`; metadata that cannot be read is left out, with a note."""
    try:
        rows = json.loads(plain)
    except RecursionError:
        return [_row(plain, fields) for fields in _spans(plain)]
    return [_opened(*row) if row[2] is not None and NOTES in row[2] else PayloadRow(*row) for row in rows]


def _noted(row: PayloadRow) -> dict[str, Any] | None:
    return row.metadata if not row.notes else {**(row.metadata or {}), NOTES: list(row.notes)}


def _opened(row_id: str, content: Any, metadata: dict[str, Any] | None) -> PayloadRow:
    if metadata is None or NOTES not in metadata:
        return PayloadRow(row_id, content, metadata)
    notes = metadata.pop(NOTES)
    return PayloadRow(row_id, content, metadata or None, tuple(notes))


def is_writable(metadata: object) -> bool:
    """Return whether the value can be written as JSON with MARGIN levels to spare."""
    for _ in range(MARGIN):
        metadata = [metadata]
    try:
        _json(metadata)
    except RecursionError:
        return False
    return True


def _row(plain: str, fields: Sequence[tuple[int, int, int]]) -> PayloadRow:
    values: list[Any] = [json.loads(plain[start:end]) if depth <= MAX_LEVELS else None for start, end, depth in fields]
    row, (_, _, depth) = _opened(*values), fields[-1]
    return row if depth <= MAX_LEVELS else replace(row, notes=(LEFT_OUT,))


def _spans(plain: str) -> Iterator[list[tuple[int, int, int]]]:
    """Find, without recursion, where each row's fields begin and end and how deep they are nested."""
    fields: list[tuple[int, int, int]] = []
    depth = start = deepest = 0
    for token in TOKEN.finditer(plain):
        mark = token.group()[0]
        if mark in "[{":
            depth += 1
            deepest = max(deepest, depth - FIELD)
            if depth == FIELD:
                fields, start, deepest = [], token.end(), 0
        elif mark in "]}":
            depth -= 1
            if depth == ROW:
                fields.append((start, token.start(), deepest))
                yield fields
        elif mark == "," and depth == FIELD:
            fields.append((start, token.start(), deepest))
            start, deepest = token.end(), 0


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
