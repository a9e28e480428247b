"""Bytes into numbered lines, as they come: a file, a body or a pipe, one piece and one line of it in memory."""

from collections.abc import Iterable, Iterator

from guardfleet.errors import LineError
from guardfleet.rows import longest_line, take_line
from guardfleet.sealing import PayloadRow

NumberedLine = tuple[int, bytes | None]  # from 1; None in place of one that is too long, which is not held


class LineCutter:
    """Cuts pieces into lines, each of at most `longest` bytes without its end."""

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
        *ended, rest = piece.split(b"\n")
        if not ended:
            self._go_on(rest)
            return []
        self._go_on(ended[0])
        first = self._close()
        found: list[NumberedLine] = [(self._number, first)]
        found += [(self._number + n, line if len(line) <= self._longest else None) for n, line in enumerate(ended[1:], 1)]
        self._number += len(ended) - 1
        self._go_on(rest)
        return found

    def end(self) -> list[NumberedLine]:
        """The last line, where it has no end."""
        if not self._size:
            return []
        line = self._close()
        return [(self._number, line)]

    def _go_on(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._longest:
            self._open = None
        elif self._open is not None:
            self._open.append(part)

    def _close(self) -> bytes | None:
        line = None if self._open is None else b"".join(self._open)
        self._open, self._size = [], 0
        self._number += 1
        return line


def numbered_rows(
    pieces: Iterable[bytes], *, max_text_bytes: int, url: str | None = None
) -> Iterator[tuple[int, PayloadRow | LineError]]:
    """Every line that is not blank as `take_lines` takes it."""
    cutter = LineCutter(longest_line(max_text_bytes))
    for piece in pieces:
        yield from take_lines(cutter.cut(piece), max_text_bytes=max_text_bytes, url=url)
    yield from take_lines(cutter.end(), max_text_bytes=max_text_bytes, url=url)


def take_lines(
    lines: Iterable[NumberedLine], *, max_text_bytes: int, url: str | None = None
) -> Iterator[tuple[int, PayloadRow | LineError]]:
    """Lines that are not blank, each as its row or as the error that it is. With `url`, a request to another one is an error."""
    for number, line in lines:
        if line is None:
            yield number, LineError(number, "too_large", f"the line has more than {longest_line(max_text_bytes)} bytes")
        elif line.strip():
            yield number, take_line(number, line, max_text_bytes=max_text_bytes, url=url)
