"""Physical lines of a text file, decoded block by block, with their numbers; lines that cannot be judged are recorded."""

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from producer.text.encodings import Encoding

QUOTE = '"'
RETURN = "\udc0d"  # replaces a carriage return that ends no line while a row is parsed; no decoded line contains it
_WITHIN = re.compile(r"\r(?!\r*(?:\n|\Z))")
_ROW = re.compile(rb'(?:(?<![^,;\t|])"(?:[^"]|"")*+"|[^\r\n])*+')  # a quote opens a field only at its beginning


def line_end_of(head: bytes) -> bytes:
    """Return a line feed (preceded or not by a carriage return); for a file without any, the carriage return of old Macs."""
    return b"\r" if b"\r" in head and b"\n" not in head else b"\n"


def row_end_of(head: bytes) -> bytes:
    """Return the same for a table, whose fields may hold either: what its first row ends with."""
    text = head.lstrip()
    row = _ROW.match(text)
    rest = text[row.end() :] if row else b""
    return b"\r" if rest.startswith(b"\r") and not rest.lstrip(b"\r").startswith(b"\n") else b"\n"


class Lines:
    """Iterates over lines with their ends. `bad` has the code and detail of refused lines, by number.

    A carriage return within a line is replaced by RETURN and sets `has_returns`, because it would end an unquoted field. A bad line
    is replaced by one with the same parity of quotes, so that a parser keeps its position; its text is not what was written.
    """

    def __init__(
        self,
        chunks: Iterable[bytes],
        encoding: Encoding,
        *,
        end: bytes,
        longest: int,
        damage: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.bad: dict[int, tuple[str, str]] = {}
        self.n = 0  # lines in earlier blocks
        self.has_returns = False
        self._chunks, self._encoding, self._end, self._longest = chunks, encoding, end, longest
        self._damage = damage  # what cut the input off, once it has ended
        self._block: list[str] = []
        self._lines = chain.from_iterable(self._blocks())

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def line(self, number: int) -> str:
        """Return a line that was yielded a moment ago, from the current block."""
        return self._block[number - self.n - 1]

    def first_bad(self, first: int, last: int) -> tuple[str, str] | None:
        """Return why these lines cannot be judged; None if they can. Forgets earlier lines."""
        found = [self.bad[number] for number in sorted(self.bad) if first <= number <= last]
        self.bad = {number: why for number, why in self.bad.items() if number > last}
        return found[0] if found else None

    def _blocks(self) -> Iterator[list[str]]:
        held: list[bytes] = []  # parts of the incomplete line
        size = quotes = 0
        for chunk in self._chunks:
            cut = chunk.rfind(self._end) + 1
            if not cut:
                held.append(chunk)
                size += len(chunk)
                if size > self._longest:  # no longer held: only its quotes are counted
                    quotes += sum(part.count(b'"') for part in held)
                    held = []
                continue
            if size > self._longest:
                ended = chunk.index(self._end) + 1
                yield self._too_long(quotes + sum(part.count(b'"') for part in [*held, chunk[:ended]]))
                held, size, quotes, chunk, cut = [], 0, 0, chunk[ended:], cut - ended  # noqa: PLW2901 - the rest of it
            if cut:
                yield self._take(self._split(b"".join([*held, chunk[:cut]])))
            held, size = [chunk[cut:]], len(chunk) - cut
        if broken := self._damage():
            yield self._refused("damaged", broken)  # and with it what was read of the last line
        elif size > self._longest:
            yield self._too_long(quotes + sum(part.count(b'"') for part in held))
        elif size:
            yield self._take(self._split(b"".join(held)))

    def _take(self, block: list[str]) -> list[str]:
        self.n += len(self._block)
        self._block = block
        return block

    def _too_long(self, quotes: int) -> list[str]:
        return self._refused("too_large", f"the line has more than {self._longest} bytes", quotes)

    def _refused(self, code: str, detail: str, quotes: int = 0) -> list[str]:
        self.bad[self.n + len(self._block) + 1] = (code, detail)
        return self._take([QUOTE * (quotes % 2) + "\n"])

    def _split(self, block: bytes) -> list[str]:
        try:
            text = block.decode(self._encoding.codec)
        except UnicodeDecodeError:
            return self._one_by_one(block)
        text, end = self._marked(text), self._end.decode()
        lines = text.split(end)
        last = lines.pop()
        whole = [line + end for line in lines]
        return [*whole, last] if last else whole

    def _one_by_one(self, block: bytes) -> list[str]:
        out = []
        first = self.n + len(self._block) + 1
        for number, line in enumerate(_cut(block, self._end), first):
            try:
                out.append(self._encoding.decode(line))
            except ValueError as error:
                self.bad[number] = ("invalid_encoding", str(error))
                out.append(line.decode(self._encoding.codec, "replace"))
        return [self._marked(line) for line in out]

    def _marked(self, text: str) -> str:
        if self._end == b"\r" or text.count("\r") == text.count("\r\n"):
            return text
        self.has_returns = True
        return _WITHIN.sub(RETURN, text)


def _cut(block: bytes, end: bytes) -> list[bytes]:
    lines = block.split(end)
    last = lines.pop()
    return [*(line + end for line in lines), *([last] if last else [])]
