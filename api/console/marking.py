"""A judged text in pieces: what its verdict's evidence points at is marked, and what is too long for a page is left out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

MOST_SHOWN = 20_000  # characters of a turn
ENDS, AROUND = 4_000, 300  # characters that are shown of a longer one: at its ends, and around each end of what is marked
HIT, WINDOW, LEFT_OUT = "hit", "window", "left-out"


@dataclass(frozen=True, slots=True)
class Span:
    """Characters that evidence points at. `number`: of a hit, as it is listed beside the text."""

    start: int
    end: int
    kind: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """Characters that are marked alike; or, without any, how many are left out."""

    text: str
    kinds: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """A text, or one turn of a conversation with its role."""

    role: str | None
    pieces: Sequence[Piece]


def turns(content: str | Sequence[Mapping[str, str]], evidence: Mapping[str, Any] | None) -> list[Turn]:
    """Return the content as it was judged, turn by turn."""
    told = [(None, content)] if isinstance(content, str) else [(one["role"], one["content"]) for one in content]
    spans = _spans(evidence or {}, len(told) - 1)
    return [Turn(role, list(pieces(text, spans.get(at, ())))) for at, (role, text) in enumerate(told)]


def _spans(evidence: Mapping[str, Any], last: int) -> dict[int, list[Span]]:
    """Return what is marked in each turn: hits in theirs, windows in the last, which is what is judged."""
    out: dict[int, list[Span]] = {}
    for number, hit in enumerate(evidence.get("lists") or (), 1):
        out.setdefault(hit.get("turn", 0), []).append(Span(hit["start"], hit["end"], HIT, number))
    if (decided := evidence.get("decided")) and len(evidence.get("windows") or ()) > 1:
        out.setdefault(last, []).append(Span(decided[0], decided[1], WINDOW))
    out.setdefault(last, []).extend(Span(start, end, LEFT_OUT) for start, end in evidence.get("left_out") or ())
    return out


def pieces(text: str, spans: Sequence[Span]) -> Iterator[Piece]:
    """Yield the text, cut where a mark begins or ends and where something is left out."""
    at = 0
    for start, end in _shown(len(text), spans):
        if start > at:
            yield Piece("", left_out=start - at)
        edges = {start, end} | {edge for span in spans for edge in (span.start, span.end) if start < edge < end}
        cuts = sorted(edges)
        for begin, stop in pairwise(cuts):
            over = [span for span in spans if span.start <= begin and stop <= span.end]
            yield Piece(
                text[begin:stop],
                tuple(dict.fromkeys(span.kind for span in over)),
                tuple(span.number for span in over if span.number and stop == min(span.end, end)),
            )
        at = end
    if at < len(text):
        yield Piece("", left_out=len(text) - at)


def _shown(n: int, spans: Sequence[Span]) -> list[tuple[int, int]]:
    """Return which characters are shown: all, or those at the ends and around marks, as far as there is room."""
    if n <= MOST_SHOWN:
        return [(0, n)] if n else []
    wanted = [(0, ENDS), (n - ENDS, n)]
    wanted += [(max(0, edge - AROUND), min(n, edge + AROUND)) for span in spans for edge in (span.start, span.end)]
    room, kept = MOST_SHOWN, []
    for start, end in wanted:
        if end - start <= room:
            kept.append((start, end))
            room -= end - start
    merged: list[tuple[int, int]] = []
    for start, end in sorted(kept):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged
