"""Texts in the letters that terms are looked for in, many at once, and the way back to where each letter stands.

Runs of a letter are one letter, words are separated by one space. A text is read plainly; words in which a Latin letter stands
beside something that can stand for one are read once more with it as that letter, and once more with exclamation marks at their
ends as letters too: what such a mark is, nothing else tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from guardfleet.lists.alphabet import BREAK, DISGUISE, LATIN, SPACE, Alphabet, Codes, alphabet, codes_of, text_of

JOINER = f"{SPACE}\U0010ffff{SPACE}"  # between texts; its middle becomes BREAK by its place, not by its code
Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
SPACE_CODE, BREAK_CODE = ord(SPACE), ord(BREAK)


@dataclass(frozen=True, slots=True)
class Folded:
    """Letters of all readings of all texts, one after the other.

    `first[i]`, `last[i]`: the run that letter i stands for, as places in `source`; `source`: places in the texts, which start at
    `starts` of all texts joined; `plain_until`: how many letters are of plain readings.
    """

    letters: str
    first: Places
    last: Places
    source: Places
    starts: list[int]
    plain_until: int


def fold(texts: Sequence[str], *, around: int = 0) -> Folded:
    """Fold texts; `around`: how many words before and after a disguised one are read with it, for terms of several words."""
    table = alphabet()
    lengths = [len(text) + len(JOINER) for text in texts]
    codes = codes_of(JOINER + JOINER.join(texts) + JOINER)
    starts = list(accumulate(lengths[:-1], initial=len(JOINER)))
    breaks = np.array([1, *(start + length - len(JOINER) + 1 for start, length in zip(starts, lengths, strict=True))])
    parts = [_collapsed(*_read(table, table.plain[codes], codes, breaks, None))]
    parts += _disguised(table, codes, breaks, around)
    letters, first, last, source = [], [], [], []
    at = 0
    for part_letters, part_first, part_last, part_source in parts:
        letters.append(part_letters)
        first.append(part_first + at)
        last.append(part_last + at)
        source.append(part_source)
        at += len(part_source)
    return Folded(
        text_of(np.concatenate(letters)),
        np.concatenate(first),
        np.concatenate(last),
        np.concatenate(source),
        starts,
        len(letters[0]),
    )


def _disguised(table: Alphabet, codes: Codes, breaks: Places, around: int) -> list[tuple[Codes, Places, Places, Places]]:
    kinds = table.kinds[codes]
    disguise, latin = (kinds & DISGUISE) != 0, (kinds & LATIN) != 0
    if not disguise.any():
        return []
    beside = _beside(latin | (disguise & (codes > 127)))  # noqa: PLR2004 - beyond ASCII: what looks like a letter is one
    suspect = disguise & (beside | (codes > 127))  # noqa: PLR2004
    if not suspect.any():
        return []
    letters = table.disguised[codes]
    final = _final_marks(codes, letters, breaks)
    every = letters.copy()
    letters[final] = SPACE_CODE
    out = []
    for read, wanted in ((letters, suspect & ~final), (every, suspect & final)):
        if wanted.any():
            read[breaks] = BREAK_CODE
            chosen = _chosen(read, wanted, around)
            if chosen.any():
                out.append(_collapsed(*_read(table, read, codes, breaks, chosen)))
    return out


def _beside(mask: Mask) -> Mask:
    out = np.zeros_like(mask)
    out[1:] |= mask[:-1]
    out[:-1] |= mask[1:]
    return out


def _final_marks(codes: Codes, letters: Codes, breaks: Places) -> Mask:
    """Return which exclamation marks end a word: after them comes no letter."""
    marks: Mask = codes == ord("!")
    if not marks.any():
        return marks
    ends = letters == SPACE_CODE
    ends[breaks] = True
    n = len(codes)
    following = np.minimum.accumulate(np.where(marks, n - 1, np.arange(n))[::-1])[::-1]  # the next place that is no mark
    out: Mask = marks & ends[following]
    return out


def _chosen(letters: Codes, wanted: Mask, around: int) -> Mask:
    """Return the places of words in which something is wanted, and of `around` words before and after; no word of another text."""
    spaces = letters == SPACE_CODE
    begins = ~spaces
    begins[1:] &= spaces[:-1]
    word = np.cumsum(begins)  # from 1; a space belongs to the word before it
    chosen = np.zeros(int(word[-1]) + 2, bool)
    chosen[word[wanted]] = True
    for _ in range(around):
        chosen = chosen | _beside(chosen)
    out: Mask = np.take(chosen, word)
    return out


def _read(table: Alphabet, letters: Codes, codes: Codes, breaks: Places, chosen: Mask | None) -> tuple[Codes, Places]:
    """Return letters and where each stands: what is ignored is left out, what is several letters is written out."""
    letters[breaks] = BREAK_CODE
    if chosen is not None:
        spaces = letters == SPACE_CODE
        letters[~chosen & ~spaces] = BREAK_CODE
        before = np.zeros_like(chosen)
        before[:-1] = chosen[1:]
        begins = ~spaces
        begins[1:] &= spaces[:-1]
        kept = chosen | (spaces & before) | begins
    else:
        kept = letters != 0
    places = np.flatnonzero(kept & (letters != 0))
    found = letters[places]
    wide = np.flatnonzero(found == table.SEVERAL)
    if len(wide):
        words = [table.several[code] for code in codes[places[wide]].tolist()]
        n = np.ones(len(found), np.int64)
        n[wide] = [len(word) for word in words]
        places, found = np.repeat(places, n), np.repeat(found, n)
        found[np.repeat(n, n) > 1] = np.concatenate(words)
    return found, places


def _collapsed(letters: Codes, source: Places) -> tuple[Codes, Places, Places, Places]:
    """Return letters without repetition, the first and last place of each run, and the places themselves."""
    changes = np.empty(len(letters), bool)
    changes[:1] = True
    np.not_equal(letters[1:], letters[:-1], out=changes[1:])
    first = np.flatnonzero(changes)
    last = np.append(first[1:], len(letters)) - 1
    return letters[first], first, last, source
