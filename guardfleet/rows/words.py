"""Whether a value holds readable words, and how error messages name a member."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}")
_QUIET = (type(None), bool, int, float, complex, Mapping, list, tuple)


def holds_words(value: Any) -> bool:
    """Return whether a text that is not blank lies inside. What is neither JSON nor a number counts as one: nobody has read it."""
    return any(bool(inner.strip()) if isinstance(inner, str) else not isinstance(inner, _QUIET) for inner in values_in(value))


def values_in(value: Any) -> Iterator[Any]:
    """Yield the value and every value inside it, lists and objects once each: a Python value may contain itself."""
    waiting, seen = [value], set()
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, Mapping | list | tuple):
            if id(inner) in seen:
                continue
            seen.add(id(inner))
            waiting += inner.values() if isinstance(inner, Mapping) else inner
        yield inner


def is_scalar(value: Any) -> bool:
    """Return whether the value contains no other values."""
    return not isinstance(value, Mapping | list | tuple)


def is_remark(value: Any) -> bool:
    """Return whether the value may describe a text, such as a label or a date: a scalar, or a list of scalars."""
    return all(map(is_scalar, value if isinstance(value, list | tuple) else (value,)))


def called(key: object) -> str:
    """Return a member's name if it looks like one: a key can be anything, even a text."""
    return f"'{key}'" if isinstance(key, str) and _NAME.fullmatch(key) else "of another name"
