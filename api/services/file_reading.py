"""Read an uploaded file as `guardfleet submit` reads one on disk: its format and columns are detected, or as somebody chose.

Of the producer only what reads text is used: compressed files and tables of Parquet or Arrow are refused, since what they unpack to
has no bound.
"""

import io
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Self, cast

from guardfleet.errors import LineError, RejectedError
from guardfleet.rows.columns import Columns
from guardfleet.rows.payload import PayloadRow
from producer import detection
from producer.naming import USUAL, ColumnError, find
from producer.readers import Input, Numbered
from producer.readers import Reading as Asked

FORMATS = ("jsonl", "json", "csv", "tsv", "lines")
ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be", "gbk", "gb18030", "big5", "shift_jis", "euc-kr", "windows-1251", "windows-1252")
TAKEN = "Taken here are JSON Lines, JSON, CSV, TSV, and a text on each line."
PLAIN_NAMES = (".txt", ".text", ".log")
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
LOOKED_BYTES = 4 << 20  # of a file, for a preview
LOOKED_ROWS, SHOWN_ROWS, SHOWN_REFUSED = 1000, 10, 5


@dataclass(frozen=True)
class Reading:
    """How a file is read; None: as it is found. `kept`: the columns that become metadata; None: every other one."""

    format: str | None = None
    encoding: str | None = None
    text: str | None = None
    id: str | None = None
    kept: tuple[str, ...] | None = None

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """Return what `stored` made."""
        kept = stored.get("kept")
        return cls(stored.get("format"), stored.get("encoding"), stored.get("text"), stored.get("id"), kept and tuple(kept))

    def stored(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {name: getattr(self, name) for name in ("format", "encoding", "text", "id", "kept")}

    def asked(self) -> Asked:
        """Return it as the producer takes it. Raises RejectedError for a format that is not read here."""
        if self.format not in (None, *FORMATS):
            raise RejectedError(f"the format must be one of: {', '.join(FORMATS)}.", param="format")
        columns = Columns(self.text or "text", self.id or "id", self.kept, self.text is not None)
        return Asked(self.format, self.encoding, columns)


@dataclass
class Preview:
    """What a file seems to be. `wrong`: why it cannot be read so, and `names` are its columns as far as they are known.

    `looked`: how many rows were looked at, `is_whole`: these are all; of these `refused` is the number of refused ones.
    """

    reading: Reading
    how: str = ""
    format: str | None = None
    encoding: str | None = None
    names: Sequence[str] = ()
    text: str | None = None
    id: str | None = None
    rows: list[PayloadRow] = field(default_factory=list)
    errors: list[LineError] = field(default_factory=list)
    looked: int = 0
    refused: int = 0
    is_whole: bool = False
    wrong: str | None = None


def require_readable(head: bytes, name: str) -> None:
    """Raise RejectedError for a file that begins like one that is not read here; it says what is, and what to do."""
    if packed := next((kind for magic, kind in PACKED.items() if head.startswith(magic)), None):
        raise RejectedError(f"{name} is compressed with {packed}. {TAKEN} Unpack it first, or {_from_a_terminal(name)}")
    try:
        table = detection.table_of(head, name)
    except RejectedError as error:
        raise RejectedError(f"{error} {TAKEN}") from None
    if table:
        raise RejectedError(f"{name} is {table.title()}. {TAKEN} Save it as one of these, or {_from_a_terminal(name)}")


def _from_a_terminal(name: str) -> str:
    """Return how such a file is submitted; a name that could be taken for an option is given as a path."""
    return f"submit it from a terminal: guardfleet submit {shlex.quote(f'./{name}' if name.startswith('-') else name)}"


def rows(name: str, chunks: Iterator[bytes], stored: Mapping[str, Any], *, max_text_bytes: int) -> Iterator[Numbered]:
    """Yield the rows of a file, numbered. Raises RejectedError if it cannot be read so."""
    return Input(name, Reading.of(stored).asked(), max_text_bytes=max_text_bytes, file=_opened(chunks)).rows()


def preview(name: str, chunks: Iterator[bytes], reading: Reading, *, max_text_bytes: int) -> Preview:
    """Look at the first rows of a file."""
    if reading.format is None and name.lower().endswith(PLAIN_NAMES):
        reading = Reading("lines", reading.encoding, reading.text, reading.id, reading.kept)
    found = Preview(reading)
    try:
        opened = Input(name, reading.asked(), max_text_bytes=max_text_bytes, file=_opened(_first(chunks)))
    except ColumnError as error:
        found.names, found.text = [each for each in error.names if each], _likely(error.names)
        found.wrong = "Choose the column that has the text."
        return found
    except RejectedError as error:
        found.wrong = str(error)
        return found
    found.how, found.format, found.names = opened.how, opened.kind, [each for each in opened.names if each]
    found.encoding = opened.encoding.name if opened.encoding else None
    found.text = opened.columns.text if found.names else None
    found.id = opened.columns.id if opened.columns.id in found.names else None
    with suppress(_EnoughError):
        _look(found, opened.rows())
    return found


def _look(found: Preview, numbered: Iterator[Numbered]) -> None:
    for _, row in numbered:
        found.looked += 1
        if isinstance(row, LineError):
            found.refused += 1
            if len(found.errors) < SHOWN_REFUSED:
                found.errors.append(row)
        elif len(found.rows) < SHOWN_ROWS:
            found.rows.append(row)
        if found.looked >= LOOKED_ROWS:
            return
    found.is_whole = True


def _likely(names: Sequence[str]) -> str | None:
    """Return the column that probably has the text."""
    return next((name for usual in USUAL if (name := find(usual, names))), None)


class _EnoughError(Exception):
    """So much of a file is looked at, and no more."""


def _first(chunks: Iterator[bytes]) -> Iterator[bytes]:
    n = 0
    for chunk in chunks:
        if n >= LOOKED_BYTES:
            raise _EnoughError
        n += len(chunk)
        yield chunk


class _Chunks(io.RawIOBase):
    """Chunks as a file that is read from its beginning to its end."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._left = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = chunk
        n = min(len(buffer), len(self._left))
        buffer[:n], self._left = self._left[:n], self._left[n:]
        return n


def _opened(chunks: Iterator[bytes]) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(_Chunks(chunks), 1 << 20))
