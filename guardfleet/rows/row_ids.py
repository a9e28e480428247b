"""Row ids: which are accepted, which id a row without one gets, and how repeated ids are found."""

import hashlib
import math
import os
import re
import uuid
from decimal import Decimal
from typing import Any

from guardfleet.errors import ContentError, LineError
from guardfleet.rows.metadata import is_storable, kind_of

MAX_CHARACTERS = 512
EXACT = 2**53  # from here on a float may stand for several integers
UUID_BYTES = 16
_INVENTED = re.compile(r"line:(\d+)")
ENTRY_BYTES = 10  # six of the hash, four of the line


def invented(line: int) -> str:
    """Return the id of a row that has none. No other line may use it, so it cannot collide."""
    return f"line:{line}"


def id_of(line: int, value: object) -> str:
    """Return the row's id, or the invented one if it is missing, null, empty or NaN. Raises ContentError."""
    text = value if type(value) is str else _text(value)
    if not text:
        return invented(line)
    if len(text) > MAX_CHARACTERS:
        raise ContentError("invalid_id", f"id has {len(text)} characters, 1 to {MAX_CHARACTERS} are allowed")
    if not is_storable(text):
        raise ContentError("invalid_id", "id holds a NUL byte or a lone surrogate")
    if text.startswith("line:") and (found := _INVENTED.fullmatch(text)) and found[1] != str(line):
        raise ContentError("invalid_id", "ids like line:1 are reserved for rows without an id, each for its own line")
    return text


def _text(value: Any) -> str:
    if hasattr(value, "dtype") and hasattr(value, "item"):  # numpy scalars
        value = value.item()
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return _digits(int(value))
    if isinstance(value, float | Decimal):
        return _whole(value)
    if isinstance(value, str | uuid.UUID):
        return str(value)
    if isinstance(value, bytes) and len(value) == UUID_BYTES:
        return str(uuid.UUID(bytes=value))
    raise ContentError("invalid_id", f"id must be a string or a whole number, this is {kind_of(value)}")


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # more digits than the interpreter converts to text
        raise ContentError("invalid_id", f"id is a number of more than {MAX_CHARACTERS} digits") from None


def _whole(value: float | Decimal) -> str:
    """Accept a float if it is certainly the whole number that was meant: pandas makes floats of ids when one is missing."""
    if math.isnan(value):
        return ""
    if not math.isfinite(value) or not -EXACT < value < EXACT:
        raise ContentError("invalid_id", "id is a number whose last digit is uncertain: give it as text")
    if value != int(value):
        raise ContentError("invalid_id", f"id is {value}, not whole" if len(str(value)) < 30 else "id is not a whole number")  # noqa: PLR2004
    return str(int(value))


class SeenIds:
    """Finds repeated ids and their first line, in 11 bytes of memory for each id plus 4 MB.

    It keeps an 8-byte hash of each id: two bytes choose the bucket, six are stored in it with the line. Among 10 million ids the
    probability of a false alarm is 3 in a million. The hash is salted anew each time, so that nobody can choose ids that share a
    bucket.
    """

    def __init__(self) -> None:
        self._salted = hashlib.blake2b(digest_size=8, salt=os.urandom(16))
        self._buckets = [bytearray() for _ in range(1 << 16)]

    def check(self, line: int, row_id: str) -> None:
        """Raise LineError if the id was seen before."""
        hashed = self._salted.copy()
        hashed.update(row_id.encode())
        mark = hashed.digest()
        bucket, rest = self._buckets[mark[0] << 8 | mark[1]], mark[2:]
        at = bucket.find(rest)
        while at >= 0:
            if at % ENTRY_BYTES == 0:
                first = int.from_bytes(bucket[at + len(rest) : at + ENTRY_BYTES])
                raise LineError(line, "duplicate_id", f"this id was used before, in line {first}")
            at = bucket.find(rest, at + 1)  # matched a line number, or the border of two entries
        bucket += rest + (line & 0xFFFFFFFF).to_bytes(4)
