"""Standard output, which may be full, closed or a pipe that nobody reads any more; and what may be shown on a terminal."""

import io
import os
import sys
import unicodedata

from guardfleet.errors import GuardfleetError, RejectedError

STDOUT = 1
UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control characters, marks that turn text around, surrogates, line separators
JOINERS = "\u200c\u200d"  # of scripts and of emoji


class ReaderGoneError(GuardfleetError):
    """Whoever read standard output has enough: `| head`. Nothing to tell."""


class _Standard(io.RawIOBase):
    """The descriptor itself: what cannot be written there is said to be of standard output, and of no file."""

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
            raise RejectedError(f"standard output cannot be written: {error.strerror}.") from error


def take_over() -> None:
    """Let writing to standard output raise GuardfleetErrors, also where it was closed before we started."""
    if sys.stdout is not sys.__stdout__:
        return  # somebody reads it within this process
    if sys.stdout is None:
        closed = os.open(os.devnull, os.O_RDONLY)  # no other file may get the number; writing to this one fails
        os.dup2(closed, STDOUT)
        encoding = "utf-8"
    else:
        encoding = sys.stdout.encoding
    raw = io.BufferedWriter(_Standard())
    sys.stdout = io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=raw.isatty())


def finish() -> None:
    """Write what is left; drop what cannot be written, which Python would try again at its end."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except GuardfleetError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)


def printable(text: str, *, line_breaks: bool = True) -> str:
    """The text with escapes in place of what a terminal obeys and does not show."""
    if text.isprintable():
        return text
    return "".join(
        char if (char == "\n" and line_breaks) or char in JOINERS or unicodedata.category(char) not in UNSEEN
        else char.encode("unicode_escape").decode()
        for char in text
    )  # fmt: skip
