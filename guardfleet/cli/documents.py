"""Files that are read as a whole and then parsed: policies, lists."""

import pathlib
import sys
from collections.abc import Callable
from typing import TypeVar

from guardfleet.errors import RejectedError

T = TypeVar("T")


def read(file: str, parse: Callable[[str], T]) -> T:
    """Return what the text in the file is (`-`: standard input). Raises RejectedError, with the file's name before each line."""
    name = "standard input" if file == "-" else file
    try:
        raw = sys.stdin.buffer.read() if file == "-" else pathlib.Path(file).read_bytes()
        text = raw.decode()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise RejectedError(f"{name} cannot be read: {cause}.") from None
    try:
        return parse(text)
    except RejectedError as error:
        raise RejectedError("\n".join(f"{name}: {line}" for line in str(error).splitlines())) from None
