"""Read lines, each a JSON value or itself a text: without blank lines; lines keep their numbers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from guardfleet.errors import LineError
from guardfleet.rows.lines import LineCutter
from guardfleet.rows.row import longest_line, parse_line
from producer.layout import Item, Tally
from producer.text.decompression import Source
from producer.text.encodings import Encoding


@dataclass
class JsonLines:
    """The values of one stream. With `comma`, each line may end with a comma, like the elements of a list.

    With `plain`, a line is no JSON but a text.
    """

    stream: Source
    encoding: Encoding
    max_text_bytes: int
    end: bytes = b"\n"
    comma: bool = False
    plain: bool = False
    tally: Tally = field(default_factory=Tally)

    def items(self) -> Iterator[Item]:
        """Yield every line that is not blank."""
        tally, n = self.tally, 0
        for lines in self._cut():
            for number, line in lines:
                n += 1
                value = self._value(number, line)
                if type(value) is LineError:
                    tally.refused += 1
                yield number, number, value
        tally.taken = n - tally.refused
        tally.blank = self._n_lines - n

    def _cut(self) -> Iterator[Sequence[tuple[int, bytes | LineError | None]]]:
        """Yield the lines that are not blank, as many at a time as a chunk holds."""
        cutter = LineCutter(longest_line(self.max_text_bytes))
        self._n_lines, is_whole = 0, True
        for chunk in self.encoding.chunks(self.stream.chunks()):
            cut = chunk if self.end == b"\n" else chunk.replace(self.end, b"\n")
            self._n_lines += cut.count(b"\n")
            is_whole = cut[-1:] == b"\n" if cut else is_whole
            yield cutter.cut(cut)
        self._n_lines += not is_whole
        if broken := self.stream.damage:  # and with it what was read of the last line
            self._n_lines += is_whole
            yield [(self._n_lines, LineError(self._n_lines, "damaged", broken))]
            return
        yield cutter.end()

    def _value(self, number: int, line: bytes | LineError | None) -> object:
        if line is None:
            return LineError(number, "too_large", f"the line has more than {longest_line(self.max_text_bytes)} bytes")
        if isinstance(line, LineError):
            return line
        try:
            if self.plain:
                return self.encoding.decode(line).rstrip("\r")
            text = line if self.encoding.name == "utf-8" else self.encoding.decode(line).encode()
            return parse_line(number, text.rstrip().removesuffix(b",") if self.comma else text)
        except LineError as error:
            return error.kept()
        except ValueError as error:
            return LineError(number, "invalid_encoding", str(error))
