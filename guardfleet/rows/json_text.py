"""Parse untrusted JSON. The only exception is JsonError, whatever the input and however deep the caller's stack is.

A fast parser handles most lines. It keeps the last of two equal keys and rounds numbers beyond 64 bits, so a line that may have
either is parsed again by a careful parser, which marks repeated keys.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

import orjson

DEEPEST = 80  # levels that the careful parser descends: more than metadata may have, and far fewer than the interpreter's stack
MOST_DIGITS = 600  # of a whole number; longer than an id may be
EXACT = 2.0**63  # from here on the fast parser rounds whole numbers
BOM = b"\xef\xbb\xbf"
_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]++|[\]}]++', re.DOTALL)  # adjacent brackets are one token


class JsonError(ValueError):
    """The bytes are not JSON; the message says where. `code` becomes the code of the row's error."""

    def __init__(self, detail: str, code: str = "invalid_json") -> None:
        super().__init__(detail)
        self.code = code


class Repeated(dict[str, Any]):
    """An object with repeated keys: it holds the last value of each, and `names` are the repeated keys."""

    names: frozenset[str]

    @classmethod
    def marking(cls, members: Mapping[str, Any], names: Iterable[str]) -> Self:
        """Return the members as an object in which `names` are marked as repeated."""
        marked = cls(members)
        marked.names = frozenset(names)
        return marked


def parse(raw: bytes) -> Any:
    """Parse a JSON text in UTF-8. Raises JsonError.

    Values deeper than DEEPEST levels may be replaced by a string, and numbers too large for a float by infinity.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _careful(raw)
    # A key has one colon, and a colon in a text appears as itself unless escaped: if none is left over, no key was repeated.
    if _colons(value, 0) == raw.count(b":") and b"\\u003" not in raw:
        return value
    return _careful(raw)


def _colons(value: Any, level: int) -> float:
    """Count the colons in a value's JSON: keys, and colons in texts. Infinity for a number that may have been rounded."""
    kind = type(value)
    if kind is dict and level < DEEPEST:
        n: float = len(value)  # colons in keys are not counted: the careful parser is used then
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
        text = raw.removeprefix(BOM).decode("utf-8", "surrogatepass")  # keep a lone surrogate as it is
    except UnicodeDecodeError as error:
        where = f"byte {error.start + 1} of it is 0x{error.object[error.start]:02x}"
        raise JsonError(f"the line is not UTF-8: {where}", "invalid_encoding") from None
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
    """Return the value that begins at `at` in a text, and where it ends, whatever its depth and its numbers.

    Raises JSONDecodeError; its position is the end of the text if the value is cut off there.
    """
    try:
        return _DECODER.raw_decode(text, at)
    except RecursionError:
        end = _end_of(text, at)
    if end is None:
        raise json.JSONDecodeError("Nothing closes the value", text, len(text))
    return _DECODER.decode(_pruned(text[at:end])), end


def _end_of(text: str, at: int) -> int | None:
    """Return where the list or object that begins here ends; None if it is cut off."""
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
    """Replace what lies deeper than DEEPEST levels by a string, so that parsing needs a bounded stack."""
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
