"""Whether a stretch of text spells a term, letter by letter: the automaton of `terms` only proposes.

A term's letters are matched in order; states are bits of an integer, one for each letter of the term. A letter may be repeated
where no word has it: three times in a row, doubled where languages seldom do, or if three are doubled. `good` does not spell `god`,
`goood` spells both; of 20,000 benign texts, 28 held a word that only a doubled letter told from one of 4,000 terms.
"""

import functools
from collections.abc import Sequence

from guardfleet.lists.alphabet import SPACE, is_sign, letters, readings

SELDOM_DOUBLED = frozenset("ijqwxy")  # in words of any language that doubles letters
MANY = 3  # of the same letter in a row, or doubled letters in a word: nobody spells like that
SHORTEST_DISGUISED = 3  # letters; below, everything is spelled by something
CAPITAL_I = "I"  # looks like a small L


class Spelling:
    """A term's letters, ready to be compared. `exact`: neither disguises nor repetitions spell it."""

    def __init__(self, word: str, *, exact: bool = False) -> None:
        self.word, self.exact = word, exact
        self._places: dict[str, int] = {}
        for at, letter in enumerate(word):
            self._places[letter] = self._places.get(letter, 0) | (2 << at)

    def spells(self, span: str, *, disguised: bool) -> bool:
        """Return whether all of the span reads as the term; `disguised`: with signs, digits and lookalikes as Latin letters."""
        if disguised and (self.exact or len(self.word) < SHORTEST_DISGUISED):
            return False
        has_l = not self.exact and not span.isupper()  # asked once: a span may be a million capitals
        seen = [(part, char.casefold()) for char in span if (part := _part(char, has_l=has_l, disguised=disguised))]
        states = 1
        for (part, _), may_repeat in zip(seen, _repeats(seen), strict=True):
            after = 0
            for reading in part:
                after |= self._after(states, reading, may_repeat=may_repeat and not self.exact)
            if not after:
                return False
            states = after
        return bool(states >> len(self.word) & 1)

    def _after(self, states: int, reading: str, *, may_repeat: bool) -> int:
        for letter in reading:
            places = self._places.get(letter, 0)
            repeated = states & places if may_repeat or letter == SPACE else 0
            states = (states << 1) & places | repeated
        return states


@functools.lru_cache(1 << 12)
def spelling(word: str, *, exact: bool) -> Spelling:
    """Return a term's spelling, made when it is first proposed: few of a hundred thousand are."""
    return Spelling(word, exact=exact)


def _part(char: str, *, has_l: bool, disguised: bool) -> tuple[str, ...]:
    """Return all that a character can be read as; `has_l`: a capital I among small letters as an L, too."""
    own = letters(char)
    if has_l and char == CAPITAL_I:
        return own, "l"
    if disguised:
        stands_for = tuple(readings(char))
        return stands_for if is_sign(char) else (own, *stands_for) if own else ()
    return (own,) if own else ()


def _repeats(seen: Sequence[tuple[tuple[str, ...], str]]) -> list[bool]:
    """Return of each letter whether it may be one too many."""
    runs: list[int] = []
    for at, one in enumerate(seen):
        if at and _is_same(seen[at - 1], one):
            runs[-1] += 1
        else:
            runs.append(1)
    free = runs.count(2) >= MANY
    out: list[bool] = []
    for n in runs:
        may = n >= MANY or (n > 1 and (free or not SELDOM_DOUBLED.isdisjoint(seen[len(out)][0])))
        out += [may] * n
    return out


def _is_same(one: tuple[tuple[str, ...], str], other: tuple[tuple[str, ...], str]) -> bool:
    """Return whether two characters in a row repeat a letter: the same one, or a sign that stands for it."""
    (can, char), (can_too, char_too) = one, other
    return char == char_too or (not (char.isalpha() and char_too.isalpha()) and not set(can).isdisjoint(can_too))
