"""Holds the packed pass against transformers' own at each load, on this model, device and precision.

*Logits* may be off from fp32's by no more than `SLACK` times what transformers itself is off in this precision: a bound in steps of
the format would have to allow for what gross errors look like in 16 bits. *Answers*, of texts whose drafts hold and whose drafts
fail, are to be `generate`'s but for near ties. What single keys attention sees is looked at apart (`sight`): one key of a thousand
changes a logit by less than 16 bits do.
"""

from collections.abc import Sequence

import numpy as np
import torch

from worker.engine.contract import Answer, Prepared
from worker.engine.drafts import Tree
from worker.engine.first_pass import FirstPass
from worker.engine.further_pass import FurtherPass
from worker.engine.packed import PackedBackend
from worker.engine.progress import Begun, Continuation, PromptRow
from worker.engine.reference import Probe, Reference
from worker.engine.sight import misses
from worker.engine.tree_attention import TreeAttention

SLACK = 2.0  # of the precision's own spread
FLOOR = 2.0**-14  # of the logits' own size: the spread of fp32, which is measured against nothing finer
MAX_CLOSE = 0.2  # of the answers that may differ where they are near ties


class SelfTestError(Exception):
    """The packed pass does not agree with transformers' own on this model and device."""


@torch.inference_mode()
def hold(backend: PackedBackend, reference: Reference) -> None:
    """Compare; raises SelfTestError with what differs."""
    missed = misses(backend.causal, backend.workspace())
    if missed:
        raise SelfTestError(f"the packed pass's attention {missed}")
    found = logits_of(backend, reference.probes, reference.depth)
    for probe, logits in zip(reference.probes, found, strict=True):
        off, allowed = spread(logits, probe)
        if not off <= allowed:
            raise SelfTestError(f"the packed pass is off by {off:.3g} from the model's own, {allowed:.3g} are this precision's")
    for draft in (None, reference.probes[0].tree.tokens[:1]):
        answers = judged(backend, reference, draft)
        pairs = list(zip(answers, reference.answers, strict=True))
        wrong = [(mine, other) for mine, other in pairs if mine.raw != other.raw]
        if any(not (mine.is_close or other.is_close) for mine, other in wrong) or len(wrong) > MAX_CLOSE * len(pairs):
            raise SelfTestError(f"the packed pass answers {len(wrong)} of {len(pairs)} texts otherwise than generate")


def spread(logits: torch.Tensor, probe: Probe) -> tuple[float, float]:
    """How far these are from fp32's, and how far they may be: roots of mean squares."""

    def size(values: torch.Tensor) -> float:
        return float(values.square().mean().sqrt())

    floor = FLOOR * size(probe.exact - probe.exact.mean(-1, keepdim=True))
    return size(logits - probe.exact), SLACK * max(floor, size(probe.near - probe.exact))


def logits_of(backend: PackedBackend, probes: Sequence[Probe], depth: int | None) -> list[torch.Tensor]:
    """As `Probe.near`, by the packed pass, all probes in one batch."""
    rows = [backend.row(probe.encoded) for probe in probes]
    first = FirstPass(rows)
    geometry = first.geometry
    workspace = backend.workspace()
    attention = backend.causal(workspace, geometry)
    hidden = backend.hidden(first.ids, geometry.positions(), geometry.reads(), attention, depth)
    logits = backend.network.logits(hidden).float()
    order = [place for part in first.parts for place in part.places]
    where = dict(zip(order, zip(geometry.first_reads.tolist(), geometry.starts.tolist(), strict=True), strict=True))
    out: list[torch.Tensor] = []
    begun: list[Continuation] = []
    for i, (probe, row) in enumerate(zip(probes, rows, strict=True)):
        at, start = where[i]
        n = len(probe.draft.parents)
        aside = at + row.mode.aside.read_at(probe.draft)
        out.append(torch.cat([logits[at : at + n], logits[aside : aside + 1]]))
        kv = workspace.kv[:, :, :, start : start + len(row.ids)].clone()
        begun.append(Continuation(row, Begun([probe.draft.tokens[0]]), kv))
    order = sorted(range(len(probes)), key=lambda i: id(rows[i].prefix))
    trees = [probes[i].tree for i in order]
    further = FurtherPass([begun[i] for i in order], trees)
    among = TreeAttention(workspace, *further.behind, trees)
    hidden = backend.hidden(further.ids, further.positions, np.arange(len(further.ids)), among, depth)
    logits = backend.network.logits(hidden).float()
    at = 0
    for i in order:
        out[i] = torch.cat([out[i], logits[[at + node for node in probes[i].nodes]]])
        at += len(probes[i].tree.parents)
    return out


def judged(backend: PackedBackend, reference: Reference, draft: Sequence[int] | None) -> list[Answer]:
    """The texts' answers with a draft behind each of them; None: the likely one."""
    kept = [(mode.learns, mode.draft) for mode in backend.modes]
    for mode in backend.modes:
        mode.learns = False
        mode.draft = mode.draft if draft is None else Tree.chain(draft)
    try:
        todo: dict[int, Prepared] = {i: row for i, row in enumerate(backend.prepare(reference.texts)) if isinstance(row, PromptRow)}
        out: dict[int, Answer] = {}
        while todo:
            found = zip(list(todo), backend.run(list(todo.values())), strict=True)
            todo = {}
            for i, row in found:
                if isinstance(row, Answer):
                    out[i] = row
                else:
                    todo[i] = row
    finally:
        for mode, (learns, before) in zip(backend.modes, kept, strict=True):
            mode.learns, mode.draft = learns, before
    return [out[i] for i in range(len(reference.texts))]
