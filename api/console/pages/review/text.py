"""A text as a reviewer sees it: its turns, cut to what a page can hold, with the spans that are known to be worst."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from guardfleet.domain.verdict import CATEGORY_NAMES, Severity
from guardfleet.verdicts.page import Content

MOST_CHARS = 20_000  # of a text on a page
MOST_TURNS = 200
SEVERITIES = {one.label: key for one, key in ((Severity.SAFE, "1"), (Severity.CONTROVERSIAL, "2"), (Severity.UNSAFE, "3"))}
# Each category's own first letter as far as it is free, and no letter that does something else (s, u, n, m).
CATEGORY_KEYS = dict(zip(CATEGORY_NAMES.values(), "vixphetcj", strict=True))


class Span(NamedTuple):
    """Characters of a turn, the end exclusive."""

    start: int
    end: int


class Part(NamedTuple):
    """Characters of a turn that are masked or not."""

    text: str
    is_masked: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of a conversation, or a whole text, whose role is empty."""

    role: str
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Text:
    """What a page shows of a text. `cut`: how many characters it leaves out."""

    turns: Sequence[Turn]
    cut: int

    @property
    def has_masks(self) -> bool:
        """Whether something is masked."""
        return any(part.is_masked for turn in self.turns for part in turn.parts)

    @classmethod
    def of(cls, content: Content, evidence: Mapping[str, Any] | None) -> "Text":
        """Return it with the spans masked that lists hit, and the window that decided if there are several."""
        messages = [("", content)] if isinstance(content, str) else [(one["role"], one["content"]) for one in content]
        left, cut, turns = MOST_CHARS, 0, []
        for number, (role, text) in enumerate(messages):
            shown = text[:left] if number < MOST_TURNS else ""
            left, cut = left - len(shown), cut + len(text) - len(shown)
            if shown or not text:
                turns.append(Turn(role, parts(shown, _spans(evidence or {}, number, is_last=number == len(messages) - 1))))
        return cls(turns, cut)


def _spans(evidence: Mapping[str, Any], number: int, *, is_last: bool) -> list[Span]:
    found = [
        Span(hit["start"], hit["end"])
        for hit in evidence.get("lists") or ()
        if hit.get("turn", number if is_last else None) == number
    ]
    if is_last and evidence.get("decided") and len(evidence.get("windows") or ()) > 1:
        found.append(Span(*evidence["decided"]))
    return found


def parts(text: str, spans: Sequence[Span]) -> list[Part]:
    """Split a text where spans begin and end; spans may overlap, and reach beyond it."""
    out, at = [], 0
    for start, end in sorted(spans):
        start, end = max(start, at), min(end, len(text))  # noqa: PLW2901
        if end > start:
            out += [Part(text[at:start], is_masked=False), Part(text[start:end], is_masked=True)]
            at = end
    out.append(Part(text[at:], is_masked=False))
    return [one for one in out if one.text]
