"""Terms by the hundred thousand, looked for in many texts at once.

An Aho-Corasick automaton over folded letters proposes, `spelling` decides. A term is bounded by what separates words, unless it is
to be found anywhere; scripts that separate no words bound nothing, and Hangul, whose words carry endings, is bounded at its
beginning.
"""

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from guardfleet.lists.alphabet import BREAK, LEET, SPACE, collapsed, is_sign, letters, merged, readings
from guardfleet.lists.folding import Folded, fold
from guardfleet.lists.spelling import spelling
from guardfleet.lists.wholes import NO_WHOLES, Wholes

UNSEPARATED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
HANGUL = "HANGUL"
MOST_WORDS, MOST_CHARACTERS = 8, 200  # of a term
MOST_ALIKE, MOST_ALIKE_LETTERS = 50, 1000  # terms of a list, and their letters, that one place of a text may be compared with
MOST_DIGITS = 4  # of a term that is seen through disguises: codes with more fold alike by the hundred
SEPARATORS = "'\u2019\u02bc.,"  # that people write between the words of a term, as hyphens
MOST_HITS = 100  # of one term in one text; a text may be a term a hundred thousand times
PIECE = 1 << 16  # characters that are folded at once: a whole shard's columns fit no core's cache, and took twice as long a text
Span = tuple[int, int]
Spans = dict[int, set[Span]]  # of one text, by entry


class Found(NamedTuple):
    """A term in a text: its number, and where, in characters."""

    entry: int
    start: int
    end: int


class Key(NamedTuple):
    """One way in which a term is looked for: as `shape`, which `word` has to spell.

    `latin`: in the Latin letters that its own look like.
    """

    entry: int
    word: str
    shape: str
    exact: bool
    latin: bool
    starts_word: bool
    ends_word: bool
    first_run: int  # how many of its shape's first letter stand in a row, and of its last
    last_run: int


class Term(NamedTuple):
    """What to look for: the number of its entry, its words, whether within words too, whether as it is written alone."""

    entry: int
    value: str
    anywhere: bool = False
    exact: bool = False


class Terms:
    """Terms and whole texts, ready to be looked for. Made once for a set of lists; thread-safe."""

    def __init__(self, terms: Iterable[Term], wholes: Wholes = NO_WHOLES) -> None:
        """Make it. Raises ValueError for a term that cannot be looked for."""
        import ahocorasick  # noqa: PLC0415

        keys: dict[str, list[Key]] = {}
        self._around = 0
        for entry, value, anywhere, exact in terms:
            for word, shape, latin in _spellings(value, exact=exact):
                bounds = _bounds(word, anywhere=anywhere)
                key = Key(entry, word, shape, exact, latin, *bounds, _run(shape), _run(shape[::-1]))
                keys.setdefault(_folded(key), []).append(key)
                self._around = max(self._around, word.count(SPACE))
        self._automaton = ahocorasick.Automaton()
        for folded, several in keys.items():
            self._automaton.add_word(folded, (len(folded), tuple(several)))
        if keys:
            self._automaton.make_automaton()
        self._wholes, self._has_keys = wholes, bool(keys)

    def find(self, texts: Sequence[str]) -> list[list[Found]]:
        """Return what was found in each text, in order, each term at most MOST_HITS times."""
        if not texts or not (self._has_keys or self._wholes):
            return [[] for _ in texts]
        out: list[list[Found]] = []
        for piece in pieces(texts):
            out += self._find(piece)
        return out

    def _find(self, texts: Sequence[str]) -> list[list[Found]]:
        out: list[Spans] = [{} for _ in texts]
        folded = fold(texts, around=self._around)
        if self._wholes:
            for at, entry in self._wholes.find(texts, folded.letters[: folded.plain_until].split(BREAK)[1:-1]):
                out[at][entry] = {(0, len(texts[at]))}
        if self._has_keys:
            scripts: dict[int, frozenset[str]] = {}
            for end, (length, keys) in self._automaton.iter(folded.letters):
                _confirm(texts, folded, end - length + 1, end, keys, out, scripts)
        return [sorted(_each(found), key=lambda one: (one.start, one.end, one.entry)) if found else [] for found in out]

    def crowded(self) -> set[int]:
        """Return the entries that MOST_ALIKE others are spelled like, or end: each place of a text could be compared with all."""
        out = set()
        for folded, (_, keys) in self._automaton.items() if self._has_keys else ():
            ends = [alike for end, (_, alike) in self._automaton.iter(folded) if end == len(folded) - 1]
            if sum(map(len, ends)) > MOST_ALIKE or sum(len(key.word) for alike in ends for key in alike) > MOST_ALIKE_LETTERS:
                out |= {key.entry for key in keys}
        return out


def pieces(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the texts in runs of about PIECE characters, in order."""
    start = n = 0
    for at, text in enumerate(texts):
        n += len(text)
        if n >= PIECE:
            yield texts[start : at + 1]
            start, n = at + 1, 0
    if start < len(texts):
        yield texts[start:]


def _each(found: Spans) -> Iterator[Found]:
    return (Found(entry, start, end) for entry, spans in found.items() for start, end in spans)


def _confirm(
    texts: Sequence[str],
    folded: Folded,
    start: int,
    end: int,
    keys: Sequence[Key],
    out: Sequence[Spans],
    scripts: dict[int, frozenset[str]],
) -> None:
    """Note of each of the terms among `keys` whether letters `start` to `end` spell it; `scripts` of texts, looked at once."""
    disguised = start >= folded.plain_until
    for key in keys:
        place = _span(folded, start + key.starts_word, end - key.ends_word, key)
        if place is None:
            continue
        at = bisect_right(folded.starts, place[0]) - 1
        text, span = texts[at], (place[0] - folded.starts[at], place[1] - folded.starts[at])
        known = out[at].get(key.entry, ())
        if len(known) >= MOST_HITS or any(span[0] < end_ and start_ < span[1] for start_, end_ in known):
            continue  # what was read plainly is not found again with the mark after it as a letter
        stretch = text[span[0] : span[1]]
        if not spelling(key.word, exact=key.exact).spells(stretch, disguised=disguised):
            continue
        if key.latin or (disguised and not any(letters(char).isascii() for char in stretch if _is_letter(char))):
            if at not in scripts:
                scripts[at] = _scripts(text)
            if not _is_meant(stretch, scripts[at], latin=key.latin):
                continue
        out[at].setdefault(key.entry, set()).add(span)


def _span(folded: Folded, start: int, end: int, key: Key) -> Span | None:
    """Return where letters `start` to `end` stand, as places in the joined texts; None if they end within a character."""
    source = folded.source
    from_, until = int(folded.first[start]), int(folded.last[end])
    if not key.starts_word:  # of a run that is longer than the term's, the last ones
        from_ = max(from_, int(folded.last[start]) - key.first_run + 1)
    if not key.ends_word:
        until = min(until, int(folded.first[end]) + key.last_run - 1)
    if until - from_ + 1 < len(key.shape):  # too few letters, as most proposals have
        return None
    if not key.ends_word and unicodedata.category(folded.letters[end + 1]) in ("Mn", "Mc"):
        return None  # the last letter goes on: a voiced kana is another one
    first, last = int(source[from_]), int(source[until])
    if (from_ and source[from_ - 1] == first) or (until + 1 < len(source) and source[until + 1] == last):
        return None
    return first, last + 1


def _run(word: str) -> int:
    return len(next("".join(group) for _, group in groupby(merged(word))))


def _is_meant(stretch: str, scripts: frozenset[str], *, latin: bool) -> bool:
    """Return whether a stretch without a Latin letter, or one in Latin letters for another script's, is more than a lookalike.

    A term of another script (`latin`) needs a letter of that script in the stretch; a stretch wholly in another script is a word
    of it, and no disguise, in a text that has more of the script than what looks like Latin.
    """
    own = [char for char in stretch if _is_letter(char)]
    if latin:
        return any(not char.isascii() for char in own)
    return bool(own) and _script(own[0]) not in scripts


def _scripts(text: str) -> frozenset[str]:
    """Return the scripts of letters in a text that look like no Latin letter."""
    return frozenset(_script(char) for char in set(text) if not char.isascii() and char.isalpha() and not readings(char))


def _is_letter(char: str) -> bool:
    return letters(char).isalpha()


def words_of(text: str) -> str:
    """Return the words of a text in letters, one space between them; case, marks and what cannot be seen are gone."""
    return " ".join("".join(map(letters, text)).split())


def require_term(term: str) -> None:
    """Raise ValueError, saying why, for what cannot be looked for as a term."""
    word = words_of(term)
    if not word:
        raise ValueError("there is no letter and no digit in it")
    if word.count(SPACE) >= MOST_WORDS or len(term) > MOST_CHARACTERS:
        raise ValueError(f"a term has at most {MOST_WORDS} words and {MOST_CHARACTERS} characters: make it a `text` or a `pattern`")
    if signs := [char for char in term if letters(char) == SPACE and not char.isspace() and not _is_separator(char)]:
        better = "write the letters that it stands for, which finds it too, or use" if is_sign(signs[0]) else "use"
        raise ValueError(f"{signs[0]!r} separates words in a term: {better} a `pattern`")


def _is_separator(char: str) -> bool:
    return char in SEPARATORS or unicodedata.category(char) == "Pd"


def _spellings(term: str, *, exact: bool) -> Iterator[tuple[str, str, bool]]:
    """Yield the words that spell a term, and the shapes in which a text has them: a disguised reading has no digits."""
    word = words_of(term)
    if not word:
        raise ValueError("there is no letter and no digit in it")
    yield word, word, False
    if not exact and (shape := _without_digits(word)) != word:
        yield word, shape, False
    alike = "".join(latin[0] if (latin := readings(char)) and not char.isascii() else char for char in word)
    if not exact and alike != word:
        yield alike, _without_digits(alike), True


def _without_digits(word: str) -> str:
    """Return the shape of a word in a disguised reading; one with many digits is a number or a code, and is looked for plainly."""
    if sum(letter in LEET for letter in word) > MOST_DIGITS:
        return word
    return "".join(LEET.get(letter, letter)[0] for letter in word)


def _bounds(word: str, *, anywhere: bool) -> tuple[bool, bool]:
    if anywhere:
        return False, False
    first, last = unicodedata.name(word[0], ""), unicodedata.name(word[-1], "")
    return not first.startswith(UNSEPARATED), not last.startswith((*UNSEPARATED, HANGUL))


def _folded(key: Key) -> str:
    """Return the letters that the automaton looks for: as `folding` has them, with the spaces that bound the term."""
    return f"{SPACE * key.starts_word}{collapsed(key.shape)}{SPACE * key.ends_word}"


def _script(char: str) -> str:
    return unicodedata.name(char, "").partition(" ")[0]
