"""From texts to judgements: which texts need no model, which to ask it about, and what its answers mean."""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from guardfleet.domain.verdict import ERASED, Category, Judgement, ServedBy, Severity, category_names, failure
from guardfleet.rows.payload import PayloadRow
from worker.engine.answer import understood
from worker.engine.interfaces import Answer
from worker.engine.prompting.prompt import is_blank

J = TypeVar("J")
GRAVITY = (
    Severity.SAFE,
    Severity.CONTROVERSIAL,
    Severity.ERROR,
    Severity.UNSAFE,
)  # ascending, for the windows of a text
GONE = failure(ERASED)
EMPTY = Judgement(Severity.SAFE, Category.NONE, served_by=ServedBy.RULE_EMPTY)
NOT_LISTED: Mapping[int, Judgement] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Triage(Generic[J]):
    """Which rows of a shard need a judgement: `ask` are indices, `duplicates` point a repeated text at its first row."""

    ask: list[int]
    duplicates: dict[int, int]
    settled: dict[int, J]


def triage(rows: Sequence[PayloadRow], digests: Sequence[bytes], listed: Mapping[int, Judgement] = NOT_LISTED) -> Triage[Judgement]:
    """Sort the rows of a shard into empty, decided by a list, repeated, and to be asked. Every index is in exactly one group."""
    return sorted_out(rows, digests, gone=GONE, empty=EMPTY, listed=listed)


def sorted_out(rows: Sequence[PayloadRow], digests: Sequence[bytes], *, gone: J, empty: J, listed: Mapping[int, J]) -> Triage[J]:
    """Do the same for any judge; `gone` and `empty`: what it says of an erased text, and of none."""
    ask: list[int] = []
    duplicates: dict[int, int] = {}
    settled: dict[int, J] = {}
    first: dict[bytes, int] = {}
    for i, (row, digest) in enumerate(zip(rows, digests, strict=True)):
        if row.is_erased:
            settled[i] = gone
        elif is_blank(row.content):
            settled[i] = empty
        elif i in listed:
            settled[i] = listed[i]
        elif digest in first:
            duplicates[i] = first[digest]
        else:
            first[digest] = i
            ask.append(i)
    return Triage(ask, duplicates, settled)


def settle(plan: Triage[J], judged: Mapping[int, J], n: int, reused: Callable[[J, ServedBy], J]) -> list[J]:
    """Return a judgement for each of the shard's `n` rows, in order; `judged` holds those of `plan.ask`.

    `reused`: makes one text's judgement that of another, equal one.
    """
    out = {**plan.settled, **judged}
    for repeat, first in plan.duplicates.items():
        out[repeat] = reused(out[first], ServedBy.DUPLICATE)
    return [out[i] for i in range(n)]


def reused(judgement: Judgement, served_by: ServedBy) -> Judgement:
    """Return the judgement as that of another, equal text; an error stays what it is."""
    return judgement if judgement.severity is Severity.ERROR else replace(judgement, served_by=served_by)


def judgement_of(answer: Answer) -> Judgement:
    """Return what an answer means. An answer that does not fit the grammar is an error that keeps it as `raw`, never safe."""
    if not answer.windows:
        return _judgement_of(answer)
    return replace(_worst_of(answer), input_tokens=answer.input_tokens, output_tokens=answer.output_tokens)


def _worst_of(answer: Answer) -> Judgement:
    """Return the judgement of a long text: that of its worst window, the one with the most P(not safe) at the gravest severity.

    A window without a verdict leaves the text without one, unless another window is unsafe.
    """
    judged = [(start, end, _judgement_of(window)) for start, end, window in answer.windows]
    start, end, worst = max(judged, key=lambda item: (GRAVITY.index(item[2].severity), _doubt(item[2])))
    alike = [judgement for _, _, judgement in judged if judgement.severity is worst.severity]
    windows = [[a, b, judgement.severity.label, category_names(judgement.categories)] for a, b, judgement in judged]
    return replace(
        worst,
        categories=functools.reduce(operator.or_, (judgement.categories for judgement in alike)),
        evidence={"windows": windows, "decided": [start, end], **answer.notes},
    )


def _doubt(judgement: Judgement) -> float:
    return 1 - judgement.probabilities[0] if judgement.probabilities else 0.0


def _judgement_of(answer: Answer) -> Judgement:
    evidence = dict(answer.notes) or None
    if answer.failure is None and answer.flaw is None and (said := understood(answer.raw, answer.responds)) is not None:
        parsed, raw = said
        return Judgement(
            parsed.severity, parsed.categories, parsed.refusal, ServedBy.MODEL, answer.probabilities, raw, answer.input_tokens,
            answer.output_tokens, category_odds=answer.categories, evidence=evidence,
        )  # fmt: skip
    seen: dict[str, Any] = {"input_tokens": answer.input_tokens, "output_tokens": answer.output_tokens, "evidence": evidence}
    if answer.failure is not None:
        return failure(answer.failure.code, answer.failure.detail, **seen)
    seen |= {"probabilities": answer.probabilities, "category_odds": answer.categories, "raw": answer.raw}
    return failure("unparsed", answer.flaw, served_by=ServedBy.MODEL, **seen)
