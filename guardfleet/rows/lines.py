"""Bytes into numbered lines, as they come: a file, a body or a pipe, one piece and one line of it in memory."""

import re
from collections.abc import Iterable, Iterator

from guardfleet.errors import LineError
from guardfleet.rows.columns import AS_NAMED, Columns
from guardfleet.rows.payload import PayloadRow
from guardfleet.rows.row import longest_line, take_line

NumberedLine = tuple[int, bytes | None]  # from 1; None in place of one that is too long, which is not held
SPARSE_BYTES = 16  # a row has more: where lines have less, they may be blank for the most part
NOT_BLANK = re.compile(rb"\S[^\n]*")


class LineCutter:
    """Cuts pieces into lines, each of at most `longest` bytes without the blanks before it and its end.

    Blank lines count, and are dropped without an object being made of each: a piece can be a million of them.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._number = 0  # of the last line that has ended
        self._open: list[bytes] | None = []  # of the line that goes on; None once it is too long
        self._size = 0  # of that

    @property
    def is_too_long(self) -> bool:
        """Whether the line that has not ended yet is so already."""
        return self._open is None

    def cut(self, piece: bytes) -> list[NumberedLine]:
        """The lines that end in this piece."""
        first, last = piece.find(b"\n"), piece.rfind(b"\n")
        if first < 0:
            self._go_on(piece)
            return []
        self._go_on(piece[:first])
        found = self._close()
        if first < last:
            found += self._between(piece[first + 1 : last])
        self._go_on(piece[last + 1 :])
        return found

    def end(self) -> list[NumberedLine]:
        """The last line, where it has no end."""
        return self._close() if self._size else []

    def _between(self, lines: bytes) -> list[NumberedLine]:
        """Whole lines, the last one without its end."""
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
        """The same where most lines may be blank: these are searched through, at the rate of a scan."""
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
    pieces: Iterable[bytes], *, max_text_bytes: int, url: str | None = None
) -> Iterator[tuple[int, PayloadRow | LineError]]:
    """Every line that is not blank as `take_lines` takes it."""
    cutter = LineCutter(longest_line(max_text_bytes))
    for piece in pieces:
        yield from take_lines(cutter.cut(piece), max_text_bytes=max_text_bytes, url=url)
    yield from take_lines(cutter.end(), max_text_bytes=max_text_bytes, url=url)


def take_lines(
    lines: Iterable[NumberedLine], *, max_text_bytes: int, url: str | None = None, columns: Columns = AS_NAMED
) -> Iterator[tuple[int, PayloadRow | LineError]]:
    """Each line as its row or as the error that it is. With `url`, a request to another one is an error."""
    for number, line in lines:
        if line is None:
            yield number, LineError(number, "too_large", f"the line has more than {longest_line(max_text_bytes)} bytes")
        else:
            yield number, take_line(number, line, max_text_bytes=max_text_bytes, url=url, columns=columns)
