"""A verdict's evidence as a sentence, for pages and exports.

The view `verdicts` builds the same sentence in SQL; a test compares the two word by word.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from guardfleet.domain.verdict import ERROR_CODES, Category, Judgement, Model, ServedBy, Severity, category_names
from guardfleet.verdicts.encoding import LABELS

EARLIER = {ServedBy.CACHE: " earlier (cached)", ServedBy.DUPLICATE: " on the same text in this job"}
REFUSED = {True: "; the response is a refusal", False: "; the response is no refusal", None: ""}


def rationale(said: Judgement, evidence: Mapping[str, Any] | None, model: Model) -> str:
    """Return the sentence that explains a verdict."""
    extent = _extent(evidence) if evidence else ""
    if said.severity is Severity.ERROR:
        return f"No verdict: {reason_of(said)}{extent}."
    if said.served_by is ServedBy.RULE_EMPTY:
        return "Safe: the text is empty, so there was nothing to judge."
    if said.severity is Severity.UNRATED:
        return f"Not rated: the job did not ask the guard{extent}."
    chances = ""
    if said.probabilities is not None:
        safe, controversial, unsafe = said.probabilities
        chances = f"; probability safe {safe:.3f}, controversial {controversial:.3f}, unsafe {unsafe:.3f}"
    earlier = EARLIER.get(said.served_by, "")
    by_list = said.served_by is ServedBy.LIST
    by = "decided by the list" if by_list else f"judged by {model.label}{earlier}"
    return f"{_verdict(said.severity, said.categories)}{REFUSED[said.refusal]}{chances}{extent}; {by}."


def reason_of(said: Judgement) -> str:
    """Return why a judgement is an error, without a full stop."""
    detail = "" if said.error_detail is None else f" ({said.error_detail})"
    return f"{ERROR_CODES.get(said.error or '', said.error or 'unknown')}{detail}"


@functools.lru_cache(maxsize=4096)
def _verdict(severity: Severity, categories: Category) -> str:
    names = category_names(categories)
    return LABELS[severity] + (f" in {', '.join(names)}" if names else ", no category")


def _extent(evidence: Mapping[str, Any]) -> str:
    parts = []
    if decided := evidence.get("decided"):
        n = len(evidence.get("windows") or ())
        parts.append(f"decided by characters {decided[0]} to {decided[1]}" + (f", one of {n} windows" if n > 1 else ""))
    if hits := evidence.get("lists"):
        parts.append(_hits(hits, evidence.get("more_hits", 0)))
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


def _hits(hits: Sequence[Mapping[str, Any]], more: int) -> str:
    first = hits[0]
    turn = f" of turn {first['turn']}" if "turn" in first else ""
    others = f", and {n} more" if (n := len(hits) + more - 1) else ""
    return f"on list {first['list']}, entry {first['entry']}, characters {first['start']} to {first['end']}{turn}{others}"


def _ranges(spans: Sequence[Sequence[int]]) -> str:
    return ", ".join(f"{start} to {end}" for start, end in spans)
