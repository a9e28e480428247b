"""Standard output, which may be full, closed or a pipe without a reader; and what is safe to show on a terminal."""

import io
import os
import sys
import unicodedata

from guardfleet.errors import GuardfleetError, RejectedError

STDOUT = 1
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control characters, marks that change text direction, surrogates, line separators
JOINERS = "\u200c\u200d"  # used in scripts and emoji


class ReaderGoneError(GuardfleetError):
    """The reader of standard output is gone, as with `| head`. There is nothing to report."""


class _Standard(io.RawIOBase):
    """The descriptor itself; a failed write is reported for standard output, not for a file."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return STDOUT

    def isatty(self) -> bool:
        return os.isatty(STDOUT)

    def write(self, data: object) -> int:
        try:
            return os.write(STDOUT, data)  # type: ignore[arg-type]
        except BrokenPipeError as error:
            raise ReaderGoneError from error
        except OSError as error:
            raise RejectedError(f"cannot write to standard output: {error.strerror}.") from error


def take_over() -> None:
    """Make writes to standard output raise GuardfleetErrors, even if it was closed before we started."""
    if sys.stdout is not sys.__stdout__:
        return  # replaced by somebody in this process
    if sys.stdout is None:
        closed = os.open(os.devnull, os.O_RDONLY)  # keeps other files from getting its number; writing to this one fails
        os.dup2(closed, STDOUT)
        encoding = "utf-8"
    else:
        encoding = sys.stdout.encoding
    raw = io.BufferedWriter(_Standard())
    sys.stdout = io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=raw.isatty())


def finish() -> None:
    """Write what is left; drop what cannot be written, which Python would try again at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except GuardfleetError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)


def printable(text: str, *, line_breaks: bool = True) -> str:
    """Return the text with escapes for characters that a terminal obeys instead of showing."""
    if text.isprintable():
        return text
    return "".join(
        char if (char == "\n" and line_breaks) or char in JOINERS or unicodedata.category(char) not in UNSEEN
        else char.encode("unicode_escape").decode()
        for char in text
    )  # fmt: skip
