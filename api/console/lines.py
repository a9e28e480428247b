"""Two documents line by line: what was taken away and what was added."""

import difflib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from api.http.problems import ProblemError

MOST_LINES = 20_000  # of both: comparing them takes time with their product
AROUND = 3  # lines that are shown around a change


class Line(NamedTuple):
    """A line of a comparison: `sign` is `+`, `-`, a space, or `…` in place of lines that are equal and left out."""

    sign: str
    old: int | None
    new: int | None
    text: str


def compared(old: str, new: str) -> list[Line]:
    """Return the comparison, without lines far from any change. Raises ProblemError for documents that are too long."""
    before, after = old.splitlines(), new.splitlines()
    if len(before) + len(after) > MOST_LINES:
        raise ProblemError(400, "too_large", f"these have more than {MOST_LINES:,} lines: compare them with `diff`.")
    out = list[Line]()
    for group in difflib.SequenceMatcher(None, before, after).get_grouped_opcodes(AROUND):
        if out or group[0][1] or group[0][3]:
            out.append(Line("…", None, None, ""))
        for tag, a, a_end, b, b_end in group:
            out += _part(tag, before[a:a_end], after[b:b_end], a, b)
    return out


def _part(tag: str, before: Sequence[str], after: Sequence[str], a: int, b: int) -> Iterator[Line]:
    if tag == "equal":
        for at, text in enumerate(before):
            yield Line(" ", a + at + 1, b + at + 1, text)
        return
    for at, text in enumerate(before):
        yield Line("-", a + at + 1, None, text)
    for at, text in enumerate(after):
        yield Line("+", None, b + at + 1, text)
