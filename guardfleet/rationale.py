"""A verdict's evidence as a sentence, for pages and exports.

The view `verdicts` says the same in SQL; a test holds the two against each other, word by word.
"""

import functools
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from guardfleet.verdict import ERROR_CODES, Category, ServedBy, Severity, category_names

THOUSANDTHS = [
    str((Decimal(byte) / 255).quantize(Decimal("0.001"), ROUND_HALF_UP)) for byte in range(256)
]  # of a stored probability
PROBABILITIES = [float(shown) for shown in THOUSANDTHS]
EARLIER = {ServedBy.CACHE: " earlier (cached)", ServedBy.DUPLICATE: " on the same text in this job"}
REFUSED = {True: "; the response is a refusal", False: "; the response is no refusal", None: ""}


def rationale(
    severity: int,
    categories: int,
    served_by: int,
    refusal: bool | None,
    probabilities: bytes | None,
    evidence: Mapping[str, Any] | None,
    error: str | None,
    error_detail: str | None,
    model: str,
) -> str:
    """The sentence. `model` is its name and the first twelve characters of its revision, joined by @."""
    extent = _extent(evidence) if evidence else ""
    if severity == Severity.ERROR:
        detail = "" if error_detail is None else f" ({error_detail})"
        return f"No verdict: {ERROR_CODES.get(error or '', error or 'unknown')}{detail}{extent}."
    if served_by == ServedBy.RULE_EMPTY:
        return "Safe: the text is empty, so there was nothing to judge."
    odds = ""
    if probabilities is not None:
        safe, controversial, unsafe = (THOUSANDTHS[byte] for byte in probabilities)
        odds = f"; probability safe {safe}, controversial {controversial}, unsafe {unsafe}"
    earlier = EARLIER.get(ServedBy(served_by), "")
    return f"{_said(severity, categories)}{REFUSED[refusal]}{odds}{extent}; judged by {model}{earlier}."


@functools.lru_cache(maxsize=4096)
def _said(severity: int, categories: int) -> str:
    names = category_names(Category(categories))
    return Severity(severity).name.capitalize() + (f" in {', '.join(names)}" if names else ", no category")


def _extent(evidence: Mapping[str, Any]) -> str:
    parts = []
    if decided := evidence.get("decided"):
        n = len(evidence.get("windows") or ())
        parts.append(f"decided by characters {decided[0]} to {decided[1]}" + (f", one of {n} windows" if n > 1 else ""))
    if left_out := evidence.get("left_out"):
        parts.append(f"left out on request: characters {_ranges(left_out)}")
    if turns := evidence.get("turns_left_out"):
        parts.append(f"left out as too long: the oldest {turns} turns")
    if cut := evidence.get("context_cut"):
        parts.append(f"left out as too long: the first {cut} characters of the turn before")
    if labels := evidence.get("role_labels"):
        neutralised = ", neutralised" if evidence.get("role_labels_neutralised") else ""
        parts.append(f"role labels within the text: {labels}{neutralised}")
    return "".join(f"; {part}" for part in parts)


def _ranges(spans: Sequence[Sequence[int]]) -> str:
    return ", ".join(f"{start} to {end}" for start, end in spans)
