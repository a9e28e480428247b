"""Patterns in RE2's syntax: all of them in one pass over a text, in time linear in its length.

A pattern sees the text in Unicode's compatibility form (NFKC) and without characters that cannot be seen; its case is as written.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from guardfleet.lists.alphabet import INVISIBLE, TOO_MANY_MARKS
from guardfleet.lists.terms import MOST_HITS, Found

MEMORY_BYTES = 64 << 20  # for all patterns of a set: RE2 refuses those that need more
ONE_BYTES = 4 << 20  # for one: 1,000 repetitions of a letter are 40 kB, of any character 1 MB
UNSEEN = re.compile(
    "[\u00ad\u0600-\u0605\u061c\u06dd\u070f\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e0fff" + "".join(sorted(INVISIBLE)) + "]"
)
SENTINEL = "\U0010fffe\U0010ffff"  # of no text; what a set without room for its states does not find
ONE_BYTE = re.compile(r"(?<!\\)(?:\\\\)*\\C")
JAMO = range(0x1160, 0x1200)  # vowels and finals: the syllable that they belong to began before


class Patterns:
    """Patterns, ready to be looked for. Made once for a set of lists; thread-safe."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Make it of patterns, numbered from 0. Raises ValueError for one that RE2 refuses."""
        import re2  # noqa: PLC0415

        self._each = [compiled(pattern) for pattern in patterns]
        self._set: Any = None
        if patterns:
            self._set = re2.Set.SearchSet(_options(MEMORY_BYTES))
            for pattern in [*patterns, SENTINEL]:
                self._set.Add(pattern)
            self._set.Compile()
            if len(patterns) not in (self._set.Match(SENTINEL) or ()):
                raise ValueError(f"the patterns need more than {MEMORY_BYTES >> 20} MB together")

    def find(self, texts: Sequence[str]) -> list[list[Found]]:
        """Return what was found in each text, in order, each pattern at most MOST_HITS times."""
        return [[] for _ in texts] if self._set is None else [self._find(text) for text in texts]

    def _find(self, text: str) -> list[Found]:
        seen = text if text.isascii() else compatible(text)
        matched = self._set.Match(seen.encode("utf-8", "replace"))
        if not matched:
            return []
        places = None if seen == text else _places(text, seen)
        found = [one for entry in matched if entry < len(self._each) for one in self._spans(entry, seen, places)]
        return sorted(found, key=lambda one: (one.start, one.end, one.entry))

    def _spans(self, entry: int, seen: str, places: list[tuple[int, int]] | None) -> Iterator[Found]:
        storable = seen.encode("utf-8", "replace").decode()
        for count, match in enumerate(self._each[entry].finditer(storable)):
            if count == MOST_HITS:
                return
            start, end = match.span()
            if start == end:  # between two characters: `x*` is everywhere, and is refused, but `\\b` is not
                continue
            if places is not None:
                start, end = places[start][0], places[end - 1][1]
            yield Found(entry, start, end)


def compatible(text: str) -> str:
    """Return the text in its compatibility form, without what cannot be seen; of marks in a row MOST_MARKS at most.

    Ordering a row of marks takes the square of its length; no language has more than ten.
    """
    return unicodedata.normalize("NFKC", TOO_MANY_MARKS.sub(r"\1", UNSEEN.sub("", text)))


def _places(text: str, seen: str) -> list[tuple[int, int]]:
    """Return which stretch of the text each character of its compatibility form stands for: all of it where that cannot be told."""
    if TOO_MANY_MARKS.search(text):
        return [(0, len(text))] * len(seen)
    places: list[tuple[int, int]] = []
    parts: list[str] = []
    at = 0
    while at < len(text):
        end = at + 1
        while end < len(text) and _continues(text[end]):
            end += 1
        parts.append(unicodedata.normalize("NFKC", UNSEEN.sub("", text[at:end])))
        places += [(at, end)] * len(parts[-1])
        at = end
    return places if "".join(parts) == seen else [(0, len(text))] * len(seen)


def _continues(char: str) -> bool:
    if char.isascii():
        return False
    return (
        bool(unicodedata.combining(unicodedata.normalize("NFKD", char)[0])) or ord(char) in JAMO or UNSEEN.match(char) is not None
    )


def compiled(pattern: str) -> Any:
    """Return the pattern compiled. Raises ValueError with RE2's reason."""
    import re2  # noqa: PLC0415

    if ONE_BYTE.search(pattern):
        raise ValueError("\\C is one byte and no character: use `.`")
    try:
        made = re2.compile(pattern, _options(ONE_BYTES))
    except re2.error as error:
        reason = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error.args[0])
        raise ValueError(f"RE2 takes no such pattern: {reason}") from None
    if made.search("") is not None:
        raise ValueError("it is found in every text, even in an empty one")
    return made


def _options(max_bytes: int) -> Any:
    import re2  # noqa: PLC0415

    options = re2.Options()
    options.max_mem = max_bytes
    options.log_errors = False
    return options
