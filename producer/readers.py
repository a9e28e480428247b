"""Read files as numbered rows, streamed. How an input is read is decided once, before a job exists, and reported once.

Memory is constant. Every physical line ends up in a row, in a refusal that names it, in the header, or is blank.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, Protocol

from guardfleet.errors import LineError, RejectedError
from guardfleet.rows.columns import AS_NAMED, Columns
from guardfleet.rows.payload import PayloadRow
from guardfleet.rows.row import VERDICT, longest_line, row_of
from producer import detection
from producer.formats import arrow
from producer.formats.delimited import Delimited
from producer.formats.header import Header, header_of
from producer.formats.json_lines import JsonLines
from producer.formats.json_values import JsonValues
from producer.layout import Item, Tally
from producer.naming import SHOWN_NAMES, resolve
from producer.text.decompression import STDIN, Head, Stream, comes_once, shown
from producer.text.encodings import Encoding, encoding_of
from producer.text.lines import Lines, line_end_of, row_end_of

Line = PayloadRow | LineError
Numbered = tuple[int, Line]  # the line from 1; of a table the row, of a JSON list the element
LOOKED_AT = 100  # JSON rows whose members tell which columns there are
MANY = 10  # if this many first lines are all not JSON, the file is not JSON


class Format(Protocol):
    """A reader of one format."""

    tally: Tally

    def items(self) -> Iterator[Item]:
        """Yield rows as they are found, with the lines they span."""


@dataclass(frozen=True)
class Reading:
    """What a caller says about an input; None: detect it."""

    format: str | None = None
    encoding: str | None = None
    columns: Columns = AS_NAMED

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in detection.FORMATS:
            raise RejectedError(f"--format {self.format!r} is unknown; use one of {', '.join(detection.FORMATS)}.")


AS_FOUND = Reading()


class Input:
    """One file (`-`: standard input), opened and inspected. Raises RejectedError if it cannot be read at all.

    `file`: what is open already, under the name `path`. `names`: the columns found; none where rows need no names.
    """

    def __init__(self, path: str, reading: Reading = AS_FOUND, *, max_text_bytes: int, file: BinaryIO | None = None) -> None:
        self.name = "standard input" if path == STDIN else shown(path)
        self._path, self._asked, self._max_text_bytes = path, reading, max_text_bytes
        self.encoding: Encoding | None = None  # for text formats
        self.kind = ""
        self.names: Sequence[str] = ()
        self._n_refused = 0  # lines of rows that were parsed, but are not rows of ours
        self._stream = Stream(path, file)
        try:
            self._format, self.how = self._decide()
        except BaseException:
            self._stream.close()
            raise

    @property
    def tally(self) -> Tally:
        """What became of the lines, once all are read."""
        found = self._format.tally
        more = self._n_refused
        return dataclasses.replace(found, taken=found.taken - more, refused=found.refused + more)

    @property
    def warnings(self) -> list[str]:
        """What deserves a look, although nothing is wrong with it."""
        return self._format.suspects.told if isinstance(self._format, Delimited) else []

    def values(self) -> Iterator[Item]:
        """Yield every row under guardfleet's names, or its error, with the lines it spans. Can be called once."""
        columns, found = self._columns, self._format.items()
        try:
            if isinstance(self._format, Delimited):  # knows the columns by position
                yield from found
                return
            for first, last, value in found:
                yield first, last, columns.placed(value)
        finally:
            self.close()

    def rows(self, *, before: int = 0, place: str | None = None) -> Iterator[Numbered]:
        """Yield every row, or its error. Can be called once. Numbers continue after `before`; errors name the `place`."""
        most = self._max_text_bytes
        for first, last, value in self.values():
            row: Line = value if type(value) is LineError else _taken(first + before, value, most)
            if isinstance(row, LineError):
                self._n_refused += 0 if row is value else last - first + 1
                row.line, row.last_line = first + before, last + before
                row.place = place and f"{place}:{first}" + (f"-{last}" if last > first else "")
            elif last > first:
                row = dataclasses.replace(row, lines=last - first + 1)
            yield first + before, row

    @property
    def columns(self) -> Columns:
        """Where the text, the id and the metadata are."""
        return self._columns

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _decide(self) -> tuple[Format, str]:
        stream, asked = self._stream, self._asked
        if not stream.head and stream.damage:
            raise RejectedError(f"{self.name} cannot be read: {stream.damage}.")
        table = asked.format if asked.format in ("parquet", "arrow") else detection.table_of(stream.head, self.name)
        if table is not None and asked.format in (None, table):
            return self._table(table)
        encoding = self.encoding = encoding_of(stream.head, self.name, asked.encoding)
        head = b"".join(encoding.chunks(iter((stream.head,))))
        end = line_end_of(head)
        whole = self._whole_lines(head, end)
        text = whole.decode(encoding.codec, "replace").replace(end.decode(), "\n")
        kind = detection.Kind(asked.format) if asked.format else detection.kind_of(
            text, self.name, asked.columns, is_whole=stream.is_short
        )  # fmt: skip
        parts = [kind.format, encoding.name.upper()] + ([stream.compression] if stream.compression else [])
        self.kind = kind.format
        if kind.format == "lines":
            self._columns = self._asked.columns
            plain = JsonLines(stream, encoding, self._max_text_bytes, end, plain=True)
            return plain, self._sentence(parts, [])
        if kind.format in ("csv", "tsv"):
            return self._delimited(kind, encoding, head, parts)
        self._columns, names = self._keys(kind, encoding, whole, end)
        if kind.format == "json":
            values = JsonValues(stream, encoding, self._max_text_bytes, kind.within)
            return values, self._sentence([*parts, f"the list {kind.within}"] if kind.within else parts, names)
        lines = JsonLines(stream, encoding, self._max_text_bytes, end, kind.comma)
        return lines, self._sentence(parts, names)

    def _table(self, kind: str) -> tuple[Format, str]:
        self._stream.close()
        if comes_once(self._path) or self._stream.compression:
            raise RejectedError(f"{self.name} is {kind.title()}: give it as an uncompressed file, not as a stream.")
        parts = (arrow.ParquetParts if kind == "parquet" else arrow.ArrowParts)(self._path)
        names = parts.schema.names
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise RejectedError(f"{self.name} has two columns named {twice}: rename one of them.")
        self._columns = resolve(self._asked.columns, names, self.name)
        arrow.check_types(parts.schema, self._columns, self.name)
        return arrow.Tables(parts, self._columns), self._sentence([kind], names)

    def _whole_lines(self, head: bytes, end: bytes) -> bytes:
        return head if self._stream.is_short else head[: head.rfind(end) + 1] or head

    def _delimited(self, kind: detection.Kind, encoding: Encoding, head: bytes, parts: list[str]) -> tuple[Format, str]:
        end = row_end_of(head)
        header = self._header(kind, encoding, self._whole_lines(head, end), end)
        self._columns, self.names = resolve(self._asked.columns, header.names, self.name), header.names
        if set(header.names) >= VERDICT and not self._columns.is_told:
            raise RejectedError(f"{self.name} already holds verdicts; use --text-column text to judge its texts again.")
        stream = self._stream
        lines = Lines(
            encoding.chunks(stream.chunks()),
            encoding,
            end=end,
            longest=longest_line(self._max_text_bytes),
            damage=lambda: stream.damage,
        )
        told = {",": "comma", ";": "semicolon", "\t": "tab"}.get(header.delimiter, header.delimiter)
        said = self._sentence([parts[0], f"delimiter {told}", *parts[1:]], header.names)
        return Delimited(header, self._columns, lines, self._max_text_bytes), said

    def _header(self, kind: detection.Kind, encoding: Encoding, head: bytes, end: bytes) -> Header:
        lines = [line + end for line in head.split(end)]
        looked = [line.decode(encoding.codec, "replace") for line in lines]
        header = header_of(looked, self.name, self._asked.columns, delimiter="\t" if kind.format == "tsv" else None)
        try:
            for line in lines[: header.lines]:
                encoding.decode(line)
        except ValueError as error:
            raise RejectedError(f"the header of {self.name} cannot be read: {error}; name its encoding with --encoding.") from None
        return header

    def _keys(self, kind: detection.Kind, encoding: Encoding, whole: bytes, end: bytes) -> tuple[Columns, list[str]]:
        """Return the columns of JSON, and the names in its first rows. Raises RejectedError if none of them has a text."""
        looked = self._first_values(kind, encoding, whole, end)
        rows = [value for value in looked if isinstance(value, dict)]
        if len(looked) >= MANY and all(isinstance(value, LineError) for value in looked):
            raise RejectedError(f"{self.name} is not JSON: none of its first {len(looked)} lines is. Use --format csv for CSV.")
        columns = self._asked.columns
        if not rows or any(isinstance(value, str) for value in looked) or any(columns.is_request(row) for row in rows):
            return columns, []  # a line may be a bare text, and a batch request has its text elsewhere
        names = self.names = list(dict.fromkeys(name for row in rows for name in row))
        return resolve(self._asked.columns, names, self.name), names

    def _first_values(self, kind: detection.Kind, encoding: Encoding, whole: bytes, end: bytes) -> list[Any]:
        head = Head(whole)
        if kind.format == "jsonl":
            lines = JsonLines(head, Encoding(encoding.codec), self._max_text_bytes, end, kind.comma)
            return [value for _, _, value in islice(lines.items(), LOOKED_AT)]
        found = JsonValues(head, Encoding(encoding.codec), self._max_text_bytes, kind.within).items()
        values = [value for _, _, value in islice(found, LOOKED_AT)]
        return [value for value in values if not (isinstance(value, LineError) and value.code == "damaged")]

    def _sentence(self, parts: list[str], names: Sequence[str]) -> str:
        columns = self._columns
        text = f"the text from {columns.text}" if columns.text != "text" else ""
        row_id = f"the id from {columns.id}" if columns.id != "id" else ""
        numbered = "rows are numbered because they have no id" if names and columns.id not in names else ""
        others = columns.others(filter(None, names))
        more = f" and {len(others) - SHOWN_NAMES} more" if len(others) > SHOWN_NAMES else ""
        kept = f"{', '.join(others[:SHOWN_NAMES])}{more} as metadata" if others else ""
        nameless = "a column without a name is left out" if names and not all(names) else ""
        return ", ".join(filter(None, [*parts, text, row_id, numbered, kept, nameless]))


def read(path: str, *, max_text_bytes: int, reading: Reading = AS_FOUND) -> Iterator[Numbered]:
    """Yield the rows of a file (`-`: standard input), each with its line, as a payload row or as its lines' error.

    Raises RejectedError if the file cannot be read at all.
    """
    yield from Input(path, reading, max_text_bytes=max_text_bytes).rows()


def _taken(line: int, value: Any, max_text_bytes: int) -> Line:
    try:
        return row_of(line, value, max_text_bytes=max_text_bytes)
    except LineError as error:
        return error.kept()
