"""What a character can be read as, once disguises are seen through: the one table behind all matching of terms.

Sources: Unicode's normalisation (NFKD) and general categories through `unicodedata`, Unicode's confusable characters (UTS 39)
through `confusable_homoglyphs`, OpenCC's single characters for traditional to simplified Chinese, and LEET below.
"""

import functools
import re
import sys
import unicodedata
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint32]
SPACE, BREAK = " ", "\x01"  # what separates words, and what no term goes across
# What people write for Latin letters. Signs among it separate words otherwise.
LEET = {
    "0": "o", "1": "il", "2": "z", "3": "e", "4": "a", "5": "s", "6": "g", "7": "t", "8": "b", "9": "g",
    "@": "a", "$": "s", "!": "i", "|": "il", "+": "t", "€": "e",
}  # fmt: skip
SIGNS = "".join(sign for sign in LEET if not sign.isalnum())
MERGED = str.maketrans("l", "i")  # letters that one sign stands for are one to the automaton; `spelling` tells them apart
LOOKALIKE_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")
# Marks that are written above, below or through letters, and vowel signs that Arabic and Hebrew may leave out. Marks of other
# scripts make other words.
MARKS = (
    (0x300, 0x36F), (0x483, 0x489), (0x591, 0x5C7), (0x610, 0x61A), (0x640, 0x640), (0x64B, 0x65F), (0x670, 0x670), (0x6D6, 0x6ED),
    (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF), (0x20D0, 0x20FF), (0xFE00, 0xFE0F), (0xFE20, 0xFE2F), (0xE0000, 0xE0FFF),
)  # fmt: skip
INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0")  # besides the category Cf
IGNORED = INVISIBLE.union(chr(code) for first, last in MARKS for code in range(first, last + 1))
MOST_MARKS = 30  # in a row: Unicode's stream-safe format has as many
_MARK = re.escape("".join(chr(code) for code in range(0x300, 0x20000) if unicodedata.combining(chr(code))))
TOO_MANY_MARKS = re.compile(f"([{_MARK}]{{{MOST_MARKS}}})[{_MARK}]+")  # ordering a row of marks takes the square of its length
LAST_MAPPED = 0x20000  # ideographs of the planes above are their own letters, but for compatibility ones
COMPATIBILITY_IDEOGRAPHS = range(0x2F800, 0x2FA20)
# Kinds of characters, as bits: a Latin letter, what can stand for one, a letter that can, a letter of a script in which some can,
# and what separates words in any reading.
LATIN, DISGUISE, LOOKALIKE, FOREIGN, GAP = 1, 2, 4, 8, 16
STROKE = re.compile(r"LATIN (?:SMALL|CAPITAL) LETTER ([A-Z]) WITH (?:DIAGONAL )?STROKE")


@functools.lru_cache(1 << 16)
def letters(char: str) -> str:
    """Return the letters that a character is: none for what cannot be seen, a space for what separates words."""
    if _is_ignored(char):
        return ""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    if not plain.isascii() and (struck := STROKE.fullmatch(unicodedata.name(char, ""))):
        return struck[1].lower()
    return "".join(_simplified(part) if _is_letter(part) else SPACE for part in plain if not _is_ignored(part))


@functools.lru_cache(1 << 16)
def readings(char: str) -> str:
    """Return the Latin letters that a character can stand for without being one of them; none for most."""
    found = LEET.get(unicodedata.normalize("NFKD", char)) or _looks_like().get(char) or _looks_like().get(letters(char), "")
    return found if len(letters(char)) == 1 else ""


@functools.lru_cache(1 << 16)
def is_sign(char: str) -> bool:
    """Return whether a character separates words unless it stands for a letter."""
    return unicodedata.normalize("NFKD", char) in SIGNS


def _is_letter(part: str) -> bool:
    return part.isalnum() or unicodedata.category(part) in ("Mn", "Mc", "Cs")


def _is_ignored(char: str) -> bool:
    if char in IGNORED:
        return True
    category = unicodedata.category(char)
    return category == "Cf" or (category == "Cc" and not char.isspace())


@functools.cache
def _looks_like() -> dict[str, str]:
    """Return the Latin letters that letters of other scripts, and rare Latin ones, look like."""
    from confusable_homoglyphs import confusables  # noqa: PLC0415 - reads a megabyte

    found = {}
    for char, alike in confusables.confusables_data.items():
        if len(char) == 1 and not char.isascii() and unicodedata.name(char, "").startswith(LOOKALIKE_SCRIPTS):
            latin = {one["c"].casefold() for one in alike if len(one["c"]) == 1 and one["c"].isascii() and one["c"].isalpha()}
            if latin - {letters(char)}:
                found[char] = "".join(sorted(latin))
    for char in [*found]:  # a capital and its small letter are one letter, so what one looks like the other can stand for
        for other in (char.lower(), char.upper()):
            if len(other) == 1 and not other.isascii():
                found.setdefault(other, found[char])
    return found


@functools.cache
def _simple() -> dict[str, str]:
    import opencc  # noqa: PLC0415 - reads its dictionaries

    traditional = "".join(map(chr, [*range(0x3400, 0xA000), *range(0xF900, 0xFB00)]))
    simple = opencc.OpenCC("t2s").convert("\n".join(traditional)).split("\n")
    return {one: other for one, other in zip(traditional, simple, strict=True) if one != other}


def _simplified(part: str) -> str:
    return part if part.isascii() else _simple().get(part, part)


class Alphabet:
    """The letters of every code point, as columns over all of them.

    `plain[code]` is the code of its one letter, 0 if it is ignored, SEVERAL if `several` has more than one; `disguised` the same
    with what can stand for a Latin letter as that letter; `kinds` the bits above.
    """

    SEVERAL = 0xFFFFFFFF

    def __init__(self) -> None:
        self.plain: Codes = np.arange(sys.maxunicode + 1, dtype=np.uint32)
        self.kinds: npt.NDArray[np.uint8] = np.zeros(sys.maxunicode + 1, np.uint8)
        self.several: dict[int, Codes] = {}
        self.disguised: Codes = self.plain.copy()
        for char in _mapped():
            word = merged(letters(char))
            self.plain[ord(char)] = self.disguised[ord(char)] = ord(word) if len(word) == 1 else self.SEVERAL if word else 0
            if len(word) > 1:
                self.several[ord(char)] = np.array([ord(letter) for letter in word], np.uint32)
            self.kinds[ord(char)] = GAP if word == SPACE else LATIN if word.isascii() and word.isalpha() else 0
            if char.isalpha() and unicodedata.name(char, "").startswith(LOOKALIKE_SCRIPTS[1:]):
                self.kinds[ord(char)] = FOREIGN
            if stands_for := readings(char):
                self.disguised[ord(char)] = ord(merged(stands_for[0]))
                self.kinds[ord(char)] = self.kinds[ord(char)] & FOREIGN | DISGUISE | (LOOKALIKE if char.isalpha() else 0)
        for column in (self.plain, self.disguised):
            column[0xE0000:0xE1000] = 0
            column[0xF0000:] = ord(SPACE)
        self.kinds[0xF0000:] = GAP


def _mapped() -> Iterator[str]:
    yield from map(chr, range(LAST_MAPPED))
    yield from map(chr, COMPATIBILITY_IDEOGRAPHS)


@functools.cache
def alphabet() -> Alphabet:
    """Return the table, made once in a process: about half a second."""
    return Alphabet()


def merged(word: str) -> str:
    """Return a word in the letters that the automaton knows."""
    return word.translate(MERGED)


def collapsed(word: str) -> str:
    """Return a word in the letters that the automaton knows, runs of one as one: as `folding` makes them of a text."""
    return "".join(letter for letter, _ in groupby(merged(word)))


def codes_of(text: str) -> Codes:
    """Return the code points of a text, lone surrogates included."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint32, copy=False)


def text_of(codes: npt.NDArray[Any]) -> str:
    """Return the text of code points, the inverse of `codes_of`."""
    return codes.astype("<u4", copy=False).tobytes().decode("utf-32-le", "surrogatepass")
