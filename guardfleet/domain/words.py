"""Whether a value holds words that somebody could read, and what a member may be called in an error message."""

import re
from collections.abc import Mapping
from typing import Any

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,39}")
_QUIET = (type(None), bool, int, float, complex)


def holds_words(value: Any) -> bool:
    """Whether a text that is not blank lies anywhere in it. What is neither JSON nor a number counts as one: nobody has read it."""
    waiting, seen = [value], set()
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, str):
            if inner and not inner.isspace():
                return True
        elif isinstance(inner, Mapping | list | tuple):
            if id(inner) not in seen:  # a Python value may hold itself
                seen.add(id(inner))
                waiting += inner.values() if isinstance(inner, Mapping) else inner
        elif not isinstance(inner, _QUIET):
            return True
    return False


def called(key: object) -> str:
    """A member's name, where it looks like one: a key may be anything, a text too."""
    return f"'{key}'" if isinstance(key, str) and _NAME.fullmatch(key) else "of another name"
