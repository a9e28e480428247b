"""Read JSON that is not JSON Lines (a list, an object with a list, or consecutive values), streamed by element."""

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from guardfleet.errors import LineError
from guardfleet.rows.json_text import first_value
from guardfleet.rows.row import longest_line, parse_line
from producer.layout import Item, Tally
from producer.text.decompression import Source
from producer.text.encodings import MARK, Encoding

NEAR = 16  # characters before the end within which the text read may be cut off inside a token
BETWEEN = re.compile(r"[\s,\ufeff]*")
IN_STRING, IN_VALUE = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL), re.compile(r'[^"\[\]{}]*+')  # up to a mark
OPENING = re.compile(r'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\[')


@dataclass
class JsonValues:
    """The elements of one stream, numbered from 1, since lines mean nothing here."""

    stream: Source
    encoding: Encoding
    max_text_bytes: int
    within: str | None = None  # the member that holds the list
    tally: Tally = field(default_factory=Tally)

    def items(self) -> Iterator[Item]:
        """Yield every element. Invalid JSON ends the stream, because the start of the next element is unknown."""
        text = _Text(self.stream, self.encoding)
        text.skip(OPENING if self.within else BETWEEN)
        is_list = self.within is not None or text.take("[")
        number = 0
        while True:
            text.skip(BETWEEN)
            if text.is_at_end or (is_list and text.peek() == "]"):
                break
            number += 1
            value = self._element(number, text)
            yield number, number, self._counted(value)
            if type(value) is LineError and value.code == "damaged":
                return
        if wrong := self._ending(text, is_list=is_list):
            yield number + 1, number + 1, self._counted(LineError(number + 1, "damaged", wrong))

    def _counted(self, value: object) -> object:
        if type(value) is LineError:
            self.tally.refused += 1
        else:
            self.tally.taken += 1
        return value

    def _element(self, number: int, text: "_Text") -> object:
        longest = longest_line(self.max_text_bytes)
        while True:
            try:
                end = first_value(text.buffer, text.at)[1]
                is_cut = end == len(text.buffer)  # a number may continue
            except json.JSONDecodeError as error:
                end, is_cut, said = 0, may_go_on(error, text.buffer), error.msg.removesuffix(" at")
            if not (is_cut and len(text.buffer) - text.at <= longest and text.more()):
                break
        if end:
            return self._parsed(number, text.until(end))
        if len(text.buffer) - text.at > longest and text.pass_over():
            return LineError(number, "too_large", f"the element has more than {longest} bytes")
        if self.stream.damage and text.is_read:
            said = self.stream.damage
        return LineError(number, "damaged", f"element {number} is incomplete ({said}); nothing after it was read")

    def _parsed(self, number: int, element: str) -> object:
        try:
            return parse_line(number, element.encode())
        except UnicodeEncodeError:
            return LineError(number, "invalid_encoding", f"the element is not {self.encoding.name.upper()}")
        except LineError as error:
            return error.kept()

    def _ending(self, text: "_Text", *, is_list: bool) -> str | None:
        """Return what is wrong with the text behind the last element, or None."""
        if self.stream.damage:
            return self.stream.damage
        if not is_list:
            return None
        if not text.take("]"):
            return "the list is not closed: the rest is missing"
        text.skip(BETWEEN)
        if self.within is not None and not text.take("}"):
            return f"there is more beside {self.within}: it was not read"
        text.skip(BETWEEN)
        return None if text.is_at_end else "there is more after the list: it was not read"


class _Text:
    """A section of the text, and the position in it."""

    def __init__(self, stream: Source, encoding: Encoding) -> None:
        self.buffer, self.at, self.is_read = "", 0, False
        self._chunks = encoding.chunks(stream.chunks())
        self._machine = codecs.getincrementaldecoder(encoding.codec)(MARK)

    @property
    def is_at_end(self) -> bool:
        return self.at >= len(self.buffer) and not self.more()

    def more(self) -> bool:
        """Read on, as much again as is held; return False at the end."""
        parts: list[str] = []
        wanted = max(1, len(self.buffer) - self.at)
        while sum(map(len, parts)) < wanted and not self.is_read:
            chunk = next(self._chunks, None)
            self.is_read = chunk is None
            parts.append(self._machine.decode(chunk or b"", final=chunk is None))
        if not any(parts):
            return False
        self.buffer, self.at = "".join([self.buffer[self.at :], *parts]), 0
        return True

    def skip(self, pattern: re.Pattern[str]) -> None:
        """Move behind whatever matches the pattern."""
        while True:
            found = pattern.match(self.buffer, self.at)
            if (found and found.end() < len(self.buffer)) or not self.more():
                self.at = found.end() if found else self.at
                return

    def peek(self) -> str:
        return self.buffer[self.at : self.at + 1]

    def take(self, sign: str) -> bool:
        """Move behind this character and return True if it is the next one."""
        is_here = self.peek() == sign
        self.at += is_here
        return is_here

    def pass_over(self) -> bool:
        """Move behind the string, list or object that begins here, holding one chunk of it. Return False if none begins or ends."""
        if self.peek() not in tuple('"[{'):
            return False
        depth, is_string = 0, False
        while True:
            found = (IN_STRING if is_string else IN_VALUE).match(self.buffer, self.at)
            self.at = found.end() if found else self.at  # both patterns also match nothing
            mark = self.peek()
            if mark in ("", "\\"):  # an escaped character, or all that follows, must still be read
                if not self.more():
                    return False
                continue
            self.at += 1
            is_string ^= mark == '"'
            depth += (mark in "[{") - (mark in "]}")
            if depth == 0 and not is_string:
                return True

    def until(self, end: int) -> str:
        start, self.at = self.at, end
        return self.buffer[start:end]


def may_go_on(error: json.JSONDecodeError, text: str) -> bool:
    """Return whether the error may only come from the end of what has been read of the value."""
    return error.pos >= len(text) - NEAR or error.msg.startswith("Unterminated string")
