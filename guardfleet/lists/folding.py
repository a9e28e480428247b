"""Texts in the letters that terms are looked for in, many at once, and the way back to where each letter stands.

Runs of a letter are one letter, words are separated by one space, and what cannot be seen is left out first. A text is read
plainly; words in which a Latin letter stands beside something that can stand for one are read once more with it as that letter, and
once more for each number of signs at their ends that may be letters too: what such a sign is, nothing else tells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, product

import numpy as np
import numpy.typing as npt

from guardfleet.lists.alphabet import (
    BREAK,
    DISGUISE,
    FOREIGN,
    GAP,
    LATIN,
    LOOKALIKE,
    SPACE,
    Alphabet,
    Codes,
    alphabet,
    codes_of,
    text_of,
)

JOINER = f"{SPACE}\U0010ffff{SPACE}"  # between texts; its middle becomes BREAK by its place, not by its code
Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Runs = tuple[Codes, Places, Places, Places]  # letters, first and last of each run as places in the last, where each stands
MOST_SIGNS = 2  # at each end of a word that are read as letters one by one, beside none and all
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
    plain = table.plain[codes]
    plain[breaks] = BREAK_CODE
    seen = None if plain.all() else np.flatnonzero(plain)
    if seen is not None:
        codes, plain, breaks = codes[seen], plain[seen], np.searchsorted(seen, breaks)
    parts = [_collapsed(*_written_out(table, plain, codes, np.arange(len(plain))))]
    parts += _disguised(table, codes, breaks, around)
    letters, first, last, source = [], [], [], []
    at = 0
    for part_letters, part_first, part_last, part_source in parts:
        letters.append(part_letters)
        first.append(part_first + at)
        last.append(part_last + at)
        source.append(part_source)
        at += len(part_source)
    places = np.concatenate(source)
    return Folded(
        text_of(np.concatenate(letters)),
        np.concatenate(first),
        np.concatenate(last),
        places if seen is None else seen[places],
        starts,
        len(letters[0]),
    )


def _disguised(table: Alphabet, codes: Codes, breaks: Places, around: int) -> list[Runs]:
    """Return the readings of the words in which something may stand for a Latin letter."""
    kinds = table.kinds[codes]
    at = np.flatnonzero(kinds & (DISGUISE | FOREIGN))
    if not len(at):
        return []
    own, beside = kinds[at], kinds[at - 1] | kinds[at + 1]
    at = at[(own & LOOKALIKE != 0) | (beside & LATIN != 0) | ((own & DISGUISE != 0) & (beside & LOOKALIKE != 0))]
    if not len(at):
        return []
    kinds[breaks] = GAP
    gaps = np.flatnonzero(kinds & GAP)
    places, is_break = _words_around(gaps, at, breaks, around)
    inner, edges = _readings(table, codes[places], is_break, most=0)
    out = [_collapsed(*_written_out(table, read, codes[places], places)) for read in inner]
    if edges.any():
        places, is_break = _words_around(gaps, np.unique(places[edges]), breaks, around)
        more, _ = _readings(table, codes[places], is_break, most=MOST_SIGNS)
        out += [_collapsed(*_written_out(table, read, codes[places], places)) for read in more]
    return out


def _readings(table: Alphabet, codes: Codes, is_break: Mask, *, most: int) -> tuple[list[Codes], Mask]:
    """Return the letters of words, and which signs stand at their edges: where a word begins or ends is not known there.

    `most`: read as many of the signs at an edge as letters, and all, in every combination with those at the other. 0: none, and
    those within words once as letters and once not.
    """
    letters = table.disguised[codes]
    letters[is_break] = BREAK_CODE
    signs = (table.plain[codes] == SPACE_CODE) & ((table.kinds[codes] & DISGUISE) != 0) & ~is_break
    gaps = (letters == SPACE_CODE) | is_break
    n, all_places = len(codes), np.arange(len(codes))
    after = np.minimum.accumulate(np.where(signs, n - 1, all_places)[::-1])[::-1]  # the next place that is no sign
    before = np.maximum.accumulate(np.where(signs, 0, all_places))
    leading, trailing = signs & gaps[before], signs & gaps[after]
    edges = leading | trailing
    lead, trail = np.where(leading, after - all_places, 0), np.where(trailing, all_places - before, 0)
    out = []
    for of_lead, of_trail in product(_depths(lead, most), _depths(trail, most)):
        read = letters.copy()
        read[(lead > of_lead) | (trail > of_trail)] = SPACE_CODE
        out.append(read)
    if most:
        return out[:0:-1], edges  # as many signs as can be belong to a word
    within = signs & ~edges
    return (out if not within.any() else [*out, np.where(within, SPACE_CODE, out[0])]), edges


def _depths(ranks: Places, most: int) -> list[int]:
    deepest = int(ranks.max(initial=0))
    return sorted({0, *range(1, min(most, deepest) + 1), deepest if most else 0})


def _words_around(gaps: Places, at: Places, breaks: Places, around: int) -> tuple[Places, Mask]:
    """Return the places of the words that hold `at` and of `around` words before and after, none of another text.

    Each word comes with the gap before and after it, and with a place before that which is a break unless the words are neighbours.
    """
    wide = np.flatnonzero(np.diff(gaps) > 1)
    starts, ends = gaps[wide] + 1, gaps[wide + 1]
    words = np.unique(np.searchsorted(starts, at, "right") - 1)
    if around:
        text = np.searchsorted(breaks, starts)
        near = np.clip(words[:, None] + np.arange(-around, around + 1), 0, len(starts) - 1)
        words = np.unique(near[text[near] == text[words][:, None]])
    begins, n = starts[words] - 2, ends[words] - starts[words] + 3
    first = np.cumsum(n) - n
    places = np.repeat(begins - first, n) + np.arange(int(n.sum()))
    is_break = np.zeros(len(places), bool)
    is_break[first[np.diff(words, prepend=-2) > 1]] = True
    places[first] = starts[words] - 1  # a gap, where it is no break
    return places, is_break


def _written_out(table: Alphabet, found: Codes, codes: Codes, source: Places) -> tuple[Codes, Places]:
    """Return the letters and where each stands; what is several letters is written out."""
    wide = np.flatnonzero(found == table.SEVERAL)
    if len(wide):
        words = [table.several[code] for code in codes[wide].tolist()]
        n = np.ones(len(found), np.int64)
        n[wide] = [len(word) for word in words]
        found, source = np.repeat(found, n), np.repeat(source, n)
        found[np.repeat(n, n) > 1] = np.concatenate(words)
    return found, source


def _collapsed(letters: Codes, source: Places) -> Runs:
    """Return letters without repetition, the first and last place of each run, and the places themselves."""
    changes = np.empty(len(letters), bool)
    changes[:1] = True
    np.not_equal(letters[1:], letters[:-1], out=changes[1:])
    first = np.flatnonzero(changes)
    last = np.append(first[1:], len(letters)) - 1
    return letters[first], first, last, source
