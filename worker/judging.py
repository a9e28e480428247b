"""From texts to judgements: what needs no model, what the model was asked, and what its answers mean."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from guardfleet.sealing import PayloadRow
from guardfleet.verdict import Category, Judgement, ServedBy, Severity, failure
from worker.answer import parse, render
from worker.engine.contract import Answer
from worker.prompt import is_blank

EMPTY = Judgement(Severity.SAFE, Category.NONE, served_by=ServedBy.RULE_EMPTY)


@dataclass(frozen=True, slots=True)
class Triage:
    """Which rows of a shard the engine must see: `ask` are indices, `twins` point a repeated text at its first row."""

    ask: list[int]
    twins: dict[int, int]
    settled: dict[int, Judgement]


def triage(rows: Sequence[PayloadRow], digests: Sequence[bytes], known: dict[bytes, Judgement]) -> Triage:
    """Sort the rows of a shard: empty, known from the cache, repeated, or to be asked. Every index is in exactly one."""
    ask, twins, settled = [], {}, {}
    first: dict[bytes, int] = {}
    for i, (row, digest) in enumerate(zip(rows, digests, strict=True)):
        if is_blank(row.content):
            settled[i] = EMPTY
        elif digest in known:
            settled[i] = known[digest]
        elif digest in first:
            twins[i] = first[digest]
        else:
            first[digest] = i
            ask.append(i)
    return Triage(ask, twins, settled)


def settle(plan: Triage, answers: Sequence[Answer], n: int) -> list[Judgement]:
    """A judgement for each of the shard's `n` rows, in order; `answers` belong to `plan.ask`."""
    out = dict(plan.settled)
    out |= {i: judgement_of(answer) for i, answer in zip(plan.ask, answers, strict=True)}
    for twin, first in plan.twins.items():
        judged = out[first]
        out[twin] = judged if judged.severity is Severity.ERROR else replace(judged, served_by=ServedBy.DUPLICATE)
    return [out[i] for i in range(n)]


def judgement_of(answer: Answer) -> Judgement:
    """What an answer means. One that is not in the grammar is an error with the raw answer kept, never safe."""
    judgement = _judgement_of(answer)
    return replace(judgement, input_tokens=answer.input_tokens, output_tokens=answer.output_tokens)


def _judgement_of(answer: Answer) -> Judgement:
    if answer.failure is not None:
        return failure(answer.failure.code, answer.failure.detail)
    parsed = parse(answer.raw)
    if parsed is None:
        return failure("unparsed", None, served_by=ServedBy.MODEL, raw=answer.raw, probabilities=answer.probabilities)
    raw = None if answer.raw == render(parsed) else answer.raw
    return Judgement(parsed.severity, parsed.categories, parsed.refusal, ServedBy.MODEL, answer.probabilities, raw)
