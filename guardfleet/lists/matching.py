"""What of a tenant's lists is in a text: hits, and what they decide.

A hit is evidence: the list with its version, the entry, and where, in characters. A text is decided by the gravest of its hits that
decide; of a conversation only hits in its last turn do, which is what is judged.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from guardfleet.domain.verdict import Category, Judgement, ServedBy, Severity
from guardfleet.lists.document import Entry
from guardfleet.lists.patterns import Patterns
from guardfleet.lists.terms import Term, Terms
from guardfleet.lists.wholes import Wholes

Content = str | Sequence[Mapping[str, str]]
MOST_TOLD, MOST_ENTRIES = 20, 1000  # hits in a verdict's evidence, and names of other entries for counting


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry that a text holds. `turn`: in which message of a conversation."""

    list: str
    entry: Entry
    start: int
    end: int
    turn: int | None = None
    decides: bool = False

    def plain(self, *, decided: bool = True) -> dict[str, Any]:
        """Return it as evidence; `decided`: it may have decided."""
        where = {} if self.turn is None else {"turn": self.turn}
        did = {"decided": True} if self.decides and decided else {}
        return {"list": self.list, "entry": self.entry.name, "start": self.start, "end": self.end, **where, **did}


@dataclass(frozen=True, slots=True)
class Hits:
    """All hits of a text, at least one."""

    all: tuple[Hit, ...]

    @property
    def severity(self) -> Severity | None:
        """The gravest severity that is decided; None if none is."""
        return max((hit.entry.severity for hit in self.all if hit.decides and hit.entry.severity is not None), default=None)

    def evidence(self, *, decided: bool = True) -> dict[str, Any]:
        """Return what is kept with the verdict; `decided`: it is what the lists decided.

        `lists`: the first hit that decided, the first of each list, then first ones of entries, and MOST_TOLD in all unless more
        lists were hit. `more_hits`: how many there are besides; `more_entries`: up to MOST_ENTRIES that `lists` does not have.
        """
        severity, found = self.severity if decided else None, list(self.all)
        first = next((hit for hit in found if hit.decides and hit.entry.severity == severity), None)
        of_list = {hit.list: hit for hit in reversed(found)}
        of_entry = {(hit.list, hit.entry.name): hit for hit in reversed(found)}
        ranks = {id(hit): 2 for hit in of_entry.values()} | {id(hit): 1 for hit in of_list.values()} | {id(first): 0}
        found.sort(key=lambda hit: ranks.get(id(hit), 3))
        n = max(MOST_TOLD, len(of_list) + 1)
        told = [hit.plain(decided=decided) for hit in found[:n]]
        named = {(hit["list"], hit["entry"]) for hit in told}
        others = [list(key) for key in of_entry if key not in named][:MOST_ENTRIES]
        left = {"more_hits": len(found) - n} if len(found) > n else {}
        return {"lists": told, **left, **({"more_entries": others} if others else {})}

    def judgement(self) -> Judgement:
        """Return what the lists decide; only where `severity` is not None."""
        severity = self.severity
        if severity is None:
            raise ValueError("no hit decides")
        deciding = [hit.entry.bits for hit in self.all if hit.decides and hit.entry.severity == severity]
        categories: Category = reduce(or_, deciding, Category.NONE)
        return Judgement(severity, categories, served_by=ServedBy.LIST, evidence=self.evidence())


class Matcher:
    """The lists that a tenant applies, ready to be looked for. Thread-safe."""

    def __init__(self, lists: Iterable[tuple[str, Sequence[Entry]]]) -> None:
        self._entries = [(label, entry) for label, entries in lists for entry in entries]
        of_kind = {kind: [i for i, (_, entry) in enumerate(self._entries) if entry.kind == kind] for kind in ("pattern", "digest")}
        numbered = list(enumerate(entry for _, entry in self._entries))
        self._terms = Terms(
            (Term(i, entry.value, entry.anywhere, entry.exact) for i, entry in numbered if entry.kind == "term"),
            Wholes((i, entry.value, entry.decide == "safe") for i, entry in numbered if entry.kind == "text"),
        )
        self._patterns = Patterns([self._entries[i][1].value for i in of_kind["pattern"]])
        self._pattern_entries = of_kind["pattern"]
        self._digests: dict[str, list[int]] = {}
        for i in of_kind["digest"]:
            self._digests.setdefault(self._entries[i][1].value, []).append(i)

    def find(self, contents: Sequence[Content]) -> list[Hits | None]:
        """Return the hits of each content: a text, or the messages of a conversation."""
        parts = [(at, turn, text) for at, content in enumerate(contents) for turn, text in _turns(content)]
        texts = [text for _, _, text in parts]
        out: list[list[Hit]] = [[] for _ in contents]
        for (at, turn, text), of_terms, of_patterns in zip(parts, self._terms.find(texts), self._patterns.find(texts), strict=True):
            is_whole = turn is None or len(contents[at]) == 1
            hits = [(one.entry, one.start, one.end) for one in of_terms]
            hits += [(self._pattern_entries[one.entry], one.start, one.end) for one in of_patterns]
            if is_whole and self._digests:
                hits += [(entry, 0, len(text)) for entry in self._digests.get(_digest(text), ())]
            if hits:
                is_last = turn is None or turn == len(contents[at]) - 1
                out[at] += self._hits(hits, turn, is_last=is_last, is_whole=is_whole)
        return [Hits(tuple(hits)) if hits else None for hits in out]

    def _hits(self, found: list[tuple[int, int, int]], turn: int | None, *, is_last: bool, is_whole: bool) -> Iterator[Hit]:
        for number, start, end in sorted(found, key=_place):
            label, entry = self._entries[number]
            if is_whole or entry.kind != "text":
                yield Hit(label, entry, start, end, turn, decides=is_last and entry.decide is not None)


def _turns(content: Content) -> Iterable[tuple[int | None, str]]:
    if isinstance(content, str):
        return [(None, content)]
    return [(turn, message["content"]) for turn, message in enumerate(content)]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _place(hit: tuple[int, int, int]) -> tuple[int, int, int]:
    return hit[1], hit[2], hit[0]
