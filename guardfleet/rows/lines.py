"""Split a byte stream (a file, a body, a pipe) into numbered lines, holding one chunk and one line of it in memory."""

import re
from collections.abc import Iterable, Iterator

from guardfleet.errors import LineError
from guardfleet.rows.columns import AS_NAMED, Columns
from guardfleet.rows.payload import PayloadRow
from guardfleet.rows.row import longest_line, take_line

NumberedLine = tuple[int, bytes | None]  # from 1; None for a line that is too long and not held
SPARSE_BYTES = 16  # rows are longer: where lines are shorter on average, most may be blank
NOT_BLANK = re.compile(rb"\S[^\n]*")


class LineCutter:
    """Splits chunks into lines, each of at most `longest` bytes without leading blanks and line end.

    Blank lines are counted and dropped without creating an object for each: a chunk can consist of a million of them.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._number = 0  # of the last complete line
        self._open: list[bytes] | None = []  # parts of the incomplete line; None once it is too long
        self._size = 0  # of the incomplete line

    @property
    def is_too_long(self) -> bool:
        """Whether the incomplete line is too long already."""
        return self._open is None

    def cut(self, chunk: bytes) -> list[NumberedLine]:
        """Return the lines that end in this chunk."""
        first, last = chunk.find(b"\n"), chunk.rfind(b"\n")
        if first < 0:
            self._go_on(chunk)
            return []
        self._go_on(chunk[:first])
        found = self._close()
        if first < last:
            found += self._between(chunk[first + 1 : last])
        self._go_on(chunk[last + 1 :])
        return found

    def end(self) -> list[NumberedLine]:
        """Return the last line, if it has no line end."""
        return self._close() if self._size else []

    def _between(self, lines: bytes) -> list[NumberedLine]:
        """Return complete lines; the last one comes without its line end."""
        number, n = self._number + 1, lines.count(b"\n")
        self._number = number + n
        if n * SPARSE_BYTES > len(lines):
            return list(self._sparse(lines, number))
        longest = self._longest
        return [
            (number, line if len(line) <= longest else None)
            for number, raw in enumerate(lines.split(b"\n"), number)
            if (line := raw.lstrip())
        ]

    def _sparse(self, lines: bytes, number: int) -> Iterator[NumberedLine]:
        """Do the same where most lines may be blank: skip them at the speed of a regular expression."""
        done = 0
        for found in NOT_BLANK.finditer(lines):
            number += lines.count(b"\n", done, found.start())
            done = found.end()
            yield number, found.group() if done - found.start() <= self._longest else None

    def _go_on(self, part: bytes) -> None:
        if not self._size:
            part = part.lstrip()
        self._size += len(part)
        if self._size > self._longest:
            self._open = None
        elif self._open is not None and part:
            self._open.append(part)

    def _close(self) -> list[NumberedLine]:
        line = None if self._open is None else b"".join(self._open)
        self._open, self._size = [], 0
        self._number += 1
        return [] if line == b"" else [(self._number, line)]


def numbered_rows(
    chunks: Iterable[bytes], *, max_text_bytes: int, url: str | None = None
) -> Iterator[tuple[int, PayloadRow | LineError]]:
    """Yield every line that is not blank, as `take_lines` does."""
    cutter = LineCutter(longest_line(max_text_bytes))
    for chunk in chunks:
        yield from take_lines(cutter.cut(chunk), max_text_bytes=max_text_bytes, url=url)
    yield from take_lines(cutter.end(), max_text_bytes=max_text_bytes, url=url)


def take_lines(
    lines: Iterable[NumberedLine], *, max_text_bytes: int, url: str | None = None, columns: Columns = AS_NAMED
) -> Iterator[tuple[int, PayloadRow | LineError]]:
    """Yield each line as its row or as its error. With `url`, a request to another URL is an error."""
    for number, line in lines:
        if line is None:
            yield number, LineError(number, "too_large", f"the line has more than {longest_line(max_text_bytes)} bytes")
        else:
            yield number, take_line(number, line, max_text_bytes=max_text_bytes, url=url, columns=columns)
