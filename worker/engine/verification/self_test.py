"""Compare the packed pass with transformers' own at each load, on this model, device and precision.

*Logits* may be off from fp32's by at most `SLACK` times what transformers itself is off in this precision: a bound in steps of the
format would have to allow what looks like a gross error in 16 bits. *Answers*, for texts whose drafts hold and whose drafts fail,
must be `generate`'s except for near ties. Which keys attention sees is checked separately (`attention_probe`): one key of a
thousand changes a logit by less than 16 bits do.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from worker.engine.decoding.drafts import TREE_NODES
from worker.engine.decoding.first_pass import FirstPass
from worker.engine.decoding.further_pass import FurtherPass
from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.decoding.partial_answers import Begun, Continuation, PromptRow
from worker.engine.forward.tree import Tree
from worker.engine.forward.tree_attention import TreeAttention
from worker.engine.interfaces import Answer, Prepared, SelfTestError
from worker.engine.prompting.prompt import Content
from worker.engine.verification.attention_probe import misses
from worker.engine.verification.reference import Probe, Reference

SLACK = 3.0  # of the precision's own spread: sound passes reach 1.2, or 2.5 if few activations dominate; the mildest bug 14
FLOOR = 2.0**-14  # of the logits' own size: the spread of fp32, which cannot be compared with anything finer
PROBABILITY_SLACK, LEAST_PROBABILITY = 4.0, 0.02  # of the precision's own, and what probabilities may be off besides
FEW_TEXTS = 8  # texts that take nearly a pass per token: their keys and values are concatenated again and again
MAX_CLOSE = 0.2  # of the answers that may differ where they are near ties


class Compared(Protocol):
    """Logits in the model's precision and in fp32, (positions, vocabulary) each."""

    @property
    def near(self) -> torch.Tensor: ...  # noqa: D102

    @property
    def exact(self) -> torch.Tensor: ...  # noqa: D102


@torch.inference_mode()
def hold(backend: PackedBackend, reference: Reference) -> None:
    """Compare. Raises SelfTestError with what differs."""
    missed = misses(backend.causal, backend.workspace())
    if missed:
        raise SelfTestError(f"the packed pass's attention {missed}")
    found = logits_of(backend, reference.probes, reference.depth)
    for probe, logits in zip(reference.probes, found, strict=True):
        off, allowed = spread(logits, probe)
        if not off <= allowed:
            raise SelfTestError(f"the packed pass is off by {off:.3g} from the model's own; this precision allows {allowed:.3g}")
    if reference.depth is None:
        _hold_readings(backend, [probe for probe in reference.probes if probe.is_prompt])
    failing = reference.probes[0].tree.tokens[:1]
    for draft, nodes, n in ((None, TREE_NODES, None), (failing, TREE_NODES, None), (failing, 1, FEW_TEXTS)):
        answers = judged(backend, reference.texts[:n], draft, nodes)
        pairs = list(zip(answers, reference.answers[:n], strict=True))
        wrong = [(mine, other) for mine, other in pairs if mine.raw != other.raw]
        if any(not (mine.is_close or other.is_close) for mine, other in wrong) or len(wrong) > MAX_CLOSE * len(pairs):
            raise SelfTestError(f"the packed pass answers {len(wrong)} of {len(pairs)} texts differently than generate")


def spread(logits: torch.Tensor, probe: Compared) -> tuple[float, float]:
    """Return how far these are from fp32's, and how far they may be: roots of mean squares."""

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
    order = [index for part in first.parts for index in part.indices]
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


def _hold_readings(backend: PackedBackend, probes: Sequence[Probe]) -> None:
    """Check what is read besides the answer: probabilities, and whether a call was close, where all was as drafted."""
    at, labels, categories, columns = backend.choices
    known = [column for column in columns if column is not None]
    for probe, answer in zip(probes, _answers(backend, [backend.row(probe.encoded) for probe in probes]), strict=True):
        named = [p for p in (answer.categories or ())[1:] if p is not None]
        behind_draft = len(probe.draft.parents)
        _hold_probabilities(probe, at, labels, list(range(len(labels))), answer.probabilities or ())
        _hold_probabilities(probe, behind_draft, categories, known, named)
        best, second = probe.exact[: len(probe.draft.parents)].topk(2).values.unbind(-1)
        lead = float((best - second).min())
        if answer.passes == 1 and answer.is_close and lead > 2 * backend.close + 1e-3:
            raise SelfTestError("the packed pass takes clear calls for close ones")
        if answer.passes == 1 and not answer.is_close and lead < backend.close / 4:
            raise SelfTestError("the packed pass takes close calls for clear ones")


def _hold_probabilities(probe: Probe, position: int, tokens: list[int], columns: list[int], found: Sequence[float]) -> None:
    """Check the probabilities of some tokens at a position of the probe."""
    near, exact = (logits[position, tokens].softmax(-1)[columns] for logits in (probe.near, probe.exact))
    allowed = PROBABILITY_SLACK * float((near - exact).abs().max()) + LEAST_PROBABILITY
    if found and not float((torch.tensor(found) - exact.cpu()).abs().max()) <= allowed:
        raise SelfTestError("the packed pass reads other probabilities than the model's own logits say")


def judged(
    backend: PackedBackend, texts: Sequence[Content], draft: Sequence[int] | None, tree_nodes: int = TREE_NODES
) -> list[Answer]:
    """Return the answers with a draft behind each text (None: the likely one) and trees of `tree_nodes` in further passes."""
    kept = [(mode.learns, mode.draft) for mode in backend.modes]
    backend.tree_nodes = tree_nodes
    for mode in backend.modes:
        mode.learns = False
        mode.draft = mode.draft if draft is None else Tree.chain(draft)
    try:
        return _answers(backend, [row for row in backend.prepare(texts) if isinstance(row, PromptRow)])
    finally:
        backend.tree_nodes = TREE_NODES
        for mode, (learns, before) in zip(backend.modes, kept, strict=True):
            mode.learns, mode.draft = learns, before


def _answers(backend: PackedBackend, rows: Sequence[Prepared]) -> list[Answer]:
    """Return the rows' answers, in as many passes as they take."""
    out: dict[int, Answer] = {}
    todo = dict(enumerate(rows))
    while todo:
        found = dict(zip(todo, backend.run(list(todo.values())), strict=True))
        out |= {i: row for i, row in found.items() if isinstance(row, Answer)}
        todo = {i: row for i, row in found.items() if not isinstance(row, Answer)}
    return [out[i] for i in range(len(rows))]
