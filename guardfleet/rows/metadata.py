"""Metadata as JSON that PostgreSQL can store. What it cannot store is left out with a note, and the text is still judged."""

import datetime as dt
import decimal
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guardfleet.rows.json_text import JsonError, Repeated, parse
from guardfleet.rows.words import called

MAX_CHARACTERS = 16_384
MAX_LEVELS = 64
MAX_NOTES, MAX_NOTE_CHARACTERS = 8, 200
NOTES = "guardfleet_notes"  # the member that carries notes inside encrypted metadata (payload.py); reserved
_SIMPLE = frozenset({str, int, bool, type(None)})
_INT64 = range(-(2**63), 2**64)
_SCALARS = (dt.date, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID)

Kept = tuple[dict[str, Any] | None, tuple[str, ...]]  # what is stored, and the notes on what was left out


def is_storable(text: str) -> bool:
    """Return whether PostgreSQL can store the text: no NUL, no lone surrogate."""
    if text.isprintable():
        return True
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def kept(value: object) -> Kept:
    """Return an object as it is stored, with notes: dates in ISO 8601, decimals and UUIDs as text, NaN and infinity as null."""
    if value is None:
        return None, ()
    if type(value) is dict and _is_plain(value):
        return value, ()
    return _Keeping().all(value)


def _is_plain(value: dict[Any, Any]) -> bool:
    """Return whether checking each member is enough: most metadata is a few words."""
    size = 0
    for key, inner in value.items():
        if type(key) is not str or not key.isprintable() or type(inner) not in _SIMPLE:
            return False
        if type(inner) is str:
            if not inner.isprintable():
                return False
            size += len(inner)
        elif type(inner) is int and inner not in _INT64:
            return False
        size += len(key)
    return 4 * (size + 32 * len(value)) < MAX_CHARACTERS and NOTES not in value


class _LeftOutError(Exception):
    """A value cannot be stored; the message says why."""


@dataclass
class _Keeping:
    notes: list[str] = field(default_factory=list)

    def all(self, value: object) -> Kept:
        try:
            found = _of_size(self._members(_object_of(value)))
        except _LeftOutError as reason:
            return None, (f"metadata {reason}: it is left out",)
        left = len(self.notes) - MAX_NOTES
        shown = self.notes[:MAX_NOTES] + ([f"metadata: {left} more of such notes"] if left > 0 else [])
        return found or (None if shown else found), tuple(shown)

    def _members(self, value: Mapping[Any, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, inner in value.items():
            try:
                name = _key(key)
                if name == NOTES:  # a producer left something out before it sent the row
                    self.notes += _told(inner)
                    continue
                found[name] = self._kept(inner, name, 2)
            except _LeftOutError as reason:
                self.notes.append(f"metadata: the member {called(key)} {reason}: it is left out")
        if isinstance(value, Repeated):
            self.notes.append("metadata: a member came more than once, the last is kept")
        return found

    def _kept(self, value: Any, name: str, level: int) -> Any:
        if level > MAX_LEVELS + 1:
            raise _LeftOutError(f"is nested deeper than {MAX_LEVELS} levels")
        if isinstance(value, Mapping):
            if isinstance(value, Repeated):
                self.notes.append(f"metadata: in the member {called(name)} one came more than once, the last is kept")
            return {_key(key): self._kept(inner, name, level + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._kept(inner, name, level + 1) for inner in value]
        if value is None or isinstance(value, bool | int | float | str):
            return self._scalar(value, name)
        return self._kept(_plainer(value), name, level + 1)

    def _scalar(self, value: Any, name: str) -> Any:
        if isinstance(value, str):
            if not is_storable(value):
                raise _LeftOutError("holds a NUL byte or a lone surrogate")
            return str(value)
        if isinstance(value, float):
            if math.isfinite(value):
                return float(value)
            self.notes.append(f"metadata: a number in the member {called(name)} is none that JSON has: it is null")
            return None
        if value is None or isinstance(value, bool):
            return value
        return int(value) if value in _INT64 else _digits(value)


def _object_of(value: object) -> Mapping[Any, Any]:
    """Return metadata as an object. JSON text (from tables) and a list of pairs (Parquet maps) are converted."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        try:
            found = parse(value.encode("utf-8", "surrogatepass"))
        except JsonError:
            found = None
        if isinstance(found, dict):
            return found
    if isinstance(value, Sequence) and value and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):  # noqa: PLR2004
        return {_key(key): inner for key, inner in value}
    raise _LeftOutError(f"is not an object but {kind_of(value)}")


def _of_size(value: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(value, ensure_ascii=False)) > MAX_CHARACTERS:
        raise _LeftOutError(f"has more than {MAX_CHARACTERS} characters")
    return value


def _told(notes: object) -> list[str]:
    if not isinstance(notes, list | tuple):
        raise _LeftOutError("has a name that is guardfleet's own")
    return [note[:MAX_NOTE_CHARACTERS] for note in notes if isinstance(note, str) and is_storable(note)]


def _key(key: object) -> str:
    text = key if isinstance(key, str) else str(key) if isinstance(key, (int, float, *_SCALARS)) else None
    if text is None or not is_storable(text):
        raise _LeftOutError("has a name, or one inside, that JSON cannot have")
    return str(text)


def _digits(value: int) -> str:
    """Return a number beyond 64 bits as text: JSON allows it, most JSON readers do not."""
    try:
        return str(int(value))
    except ValueError:
        raise _LeftOutError("is a number of too many digits") from None


def _plainer(value: Any) -> Any:
    """Convert a Python value one step towards JSON."""
    try:
        if hasattr(value, "dtype") and hasattr(value, "tolist"):  # numpy's scalars and arrays
            found = value.tolist()
            if found is not value and not hasattr(found, "dtype"):
                return found
        elif isinstance(value, dt.date | dt.time):
            return None if value != value else value.isoformat()  # noqa: PLR0124 - pandas' NaT
        elif isinstance(value, _SCALARS):
            return str(value) if not isinstance(value, decimal.Decimal) or value.is_finite() else math.nan
    except Exception:  # noqa: BLE001 - whatever a foreign class raises, the text is judged
        raise _LeftOutError("could not be read") from None
    raise _LeftOutError(f"is {kind_of(value)}")


def kind_of(value: object) -> str:
    """Describe a value's type, in JSON's words where it has them."""
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        bytes: "bytes",
        type(None): "null",
    }
    return names.get(type(value), f"of the type {type(value).__name__}")
