"""JSON from strangers as Python values, or why it cannot be read: never another exception, and never one that depends on who calls.

The quick parser takes what most lines are. It keeps the last of two equal keys and rounds numbers beyond 64 bits, so whatever could
hold either is read again by a careful one, which marks repeated keys.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

import orjson

DEEPEST = 80  # levels that the careful parser goes down: more than metadata may have, and far less than the interpreter's stack
MOST_DIGITS = 600  # of a whole number; beyond an id's length
EXACT = 2.0**63  # from here on the quick parser rounds whole numbers
BOM = b"\xef\xbb\xbf"
_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]++|[\]}]++', re.DOTALL)  # brackets that follow each other are one


class JsonError(ValueError):
    """The bytes are no JSON; the message says where. `code`: what the row's error is then."""

    def __init__(self, detail: str, code: str = "invalid_json") -> None:
        super().__init__(detail)
        self.code = code


class Repeated(dict[str, Any]):
    """An object in which keys came more than once: it has the last of each, and `names` are those keys."""

    names: frozenset[str]

    @classmethod
    def marking(cls, members: Mapping[str, Any], names: Iterable[str]) -> Self:
        """The members as an object in which these came more than once."""
        marked = cls(members)
        marked.names = frozenset(names)
        return marked


def parse(raw: bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises JsonError.

    What lies deeper than DEEPEST levels may come as a string in its place, and a number that no float can hold as infinity.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _careful(raw)
    # Each key has one colon, and each colon of a text is there too, unless it is escaped: with none left over no key was repeated.
    if _colons(value, 0) == raw.count(b":") and b"\\u003" not in raw:
        return value
    return _careful(raw)


def _colons(value: Any, level: int) -> float:
    """Colons that the JSON of a value has: keys, and those in texts. Infinity for a number that may have been rounded."""
    kind = type(value)
    if kind is dict and level < DEEPEST:
        n: float = len(value)  # a colon in a key is not looked for: then the careful parser is asked
        for inner in value.values():
            if type(inner) is str:
                n += inner.count(":")
            elif inner is not None:
                n += _colons(inner, level + 1)
        return n
    if kind is list and level < DEEPEST:
        return sum([_colons(inner, level + 1) for inner in value])
    if kind is str:
        return float(value.count(":"))
    if kind is float or kind is list or kind is dict:
        return 0 if kind is float and -EXACT < value < EXACT else math.inf
    return 0


def _careful(raw: bytes) -> Any:
    try:
        text = raw.removeprefix(BOM).decode("utf-8", "surrogatepass")  # a lone surrogate stays what it is
    except UnicodeDecodeError as error:
        place = f"byte {error.start + 1} of it is 0x{error.object[error.start]:02x}"
        raise JsonError(f"the line is not UTF-8: {place}", "invalid_encoding") from None
    if text.count("[") + text.count("{") > DEEPEST:
        text = _pruned(text)
    try:
        return _CAREFUL.decode(text)
    except json.JSONDecodeError as error:
        raise JsonError(f"{error.msg.removesuffix(' at')} at column {error.colno}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    keys = [key for key, _ in pairs]
    return Repeated.marking(found, (key for key in found if keys.count(key) > 1) if len(keys) < DEEPEST else found)


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= MOST_DIGITS else math.copysign(math.inf, -1 if digits[0] == "-" else 1)


_CAREFUL = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
_DECODER = json.JSONDecoder(parse_int=_integer)


def first_value(text: str, at: int = 0) -> tuple[Any, int]:
    """The value that begins at this place of a text, and where it ends; however deep, and whatever its numbers are.

    Raises JSONDecodeError, whose place is the end of the text where the value goes on behind it.
    """
    try:
        return _DECODER.raw_decode(text, at)
    except RecursionError:
        end = _end_of(text, at)
    if end is None:
        raise json.JSONDecodeError("Nothing closes the value", text, len(text))
    return _DECODER.decode(_pruned(text[at:end])), end


def _end_of(text: str, at: int) -> int | None:
    """Where the list or object ends that begins here; None if that is not in the text."""
    depth = 0
    for found in _TOKENS.finditer(text, at):
        if found[0][0] in "[{":
            depth += len(found[0])
        elif found[0][0] in "]}":
            if depth <= len(found[0]):
                return found.start() + depth
            depth -= len(found[0])
    return None


def _pruned(text: str) -> str:
    """The same with a string in place of what lies deeper than DEEPEST levels, so that parsing needs a bounded stack."""
    out: list[str] = []
    depth = kept = 0
    for found in _TOKENS.finditer(text):
        mark = found[0]
        if mark[0] in "[{":
            if depth <= DEEPEST < depth + len(mark):
                out.append(text[kept : found.start() + DEEPEST - depth])
            depth += len(mark)
        elif mark[0] in "]}":
            if depth - len(mark) <= DEEPEST < depth:
                out.append('"..."')
                kept = found.start() + depth - DEEPEST
            depth -= len(mark)
    return "".join(out) if depth > DEEPEST else "".join(out) + text[kept:]
