"""Entries that are a whole text: the same letters in the same order.

What makes a text unsafe is seen through case, marks and what cannot be seen. What allows one has to be that very text, but for
case, width, spaces and punctuation: a sign, a mark or a hidden character may be what a model would judge.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from guardfleet.lists.alphabet import SPACE, TOO_MANY_MARKS, collapsed, letters

WIDE = re.compile("[\uff01-\uffee\u3000]")


class Wholes:
    """Whole texts, ready to be looked for."""

    def __init__(self, entries: Iterable[tuple[int, str, bool]] = ()) -> None:
        """Make it of (number, text, whether it allows)."""
        self._known: dict[str, list[tuple[int, bool, str]]] = {}
        for entry, value, allows in entries:
            self._known.setdefault(plain_of(value), []).append((entry, allows, strict_of(value)))
        self._folded = {collapsed(_letters_of(value)) for value in self._known}

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._known)

    def find(self, texts: Sequence[str], folded: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Yield which text is which entry; `folded`: the letters of each text, as `folding` makes them."""
        for at, (text, word) in enumerate(zip(texts, folded, strict=True)):
            if word.strip() in self._folded:
                for entry, allows, strict in self._known.get(plain_of(text), ()):
                    if not allows or strict == strict_of(text):
                        yield at, entry


def plain_of(text: str) -> str:
    """Return the letters and symbols of a text; case, marks, punctuation and what cannot be seen are gone."""
    return " ".join("".join(char if _is_symbol(char) else letters(char) for char in text).split())


def strict_of(text: str) -> str:
    """Return a text of which only case, width, spaces and punctuation are gone."""
    if TOO_MANY_MARKS.search(text):
        return text
    narrow = "".join(unicodedata.normalize("NFKC", char) if WIDE.match(char) else char for char in text)
    seen = unicodedata.normalize("NFC", unicodedata.normalize("NFC", narrow).casefold())
    following = f"{seen[1:]}{SPACE}"
    kept = (SPACE if _separates(char) and not after.isdigit() else char for char, after in zip(seen, following, strict=False))
    return " ".join("".join(kept).split())  # what stands before a digit may be its sign


def _letters_of(plain: str) -> str:
    return " ".join("".join(SPACE if _is_symbol(char) else char for char in plain).split())


def _is_symbol(char: str) -> bool:
    return letters(char) == SPACE and not _separates(char)


def _separates(char: str) -> bool:
    return char.isspace() or unicodedata.category(char)[0] in "PZ"


NO_WHOLES = Wholes()
