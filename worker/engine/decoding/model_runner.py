"""Exact greedy answers in one pass: packed rows, the constant prefix computed once, the answer drafted and verified in place.

Pass 1 reads prompt and draft together: if the model's choice at each position is the drafted token, the answer is complete. A row
that leaves the draft becomes a `Continuation`, which the engine pools with others; its next pass verifies a tree of likely
continuations behind its stored keys and values. An empty tree is plain greedy decoding, a token per pass. Whatever is drafted, the
answer is the one that `generate` would give token by token.
"""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch

from guardfleet.domain.verdict import Model
from worker.engine.answer import parse
from worker.engine.decoding import batch_budget
from worker.engine.decoding.cuda_graphs import Capture, Graphs, record
from worker.engine.decoding.drafts import TREE_NODES, Drafts, grammar
from worker.engine.decoding.first_pass import FirstPass, Part, answers_as_drafted
from worker.engine.decoding.further_pass import FurtherPass
from worker.engine.decoding.logits import LabelTokens, Reads, encoder_of
from worker.engine.decoding.modes import PROBES, Mode, shared_beginning
from worker.engine.decoding.partial_answers import Begun, Continuation, Ending, PromptRow
from worker.engine.decoding.passes import Passes
from worker.engine.device import total_memory, translating_faults
from worker.engine.forward.attention import Workspace
from worker.engine.forward.geometry import Ints, Prefix
from worker.engine.forward.network import Attention
from worker.engine.forward.tree import Tree
from worker.engine.forward.tree_attention import TreeAttention
from worker.engine.interfaces import Answer, Collect, Launched, Pieces, Prepared, Unjudgeable, require_none
from worker.engine.model.loading import LoadedModel
from worker.engine.prompting.prompt import Content, Encoded, messages_of
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.prompting.windows import DEFAULT_POLICY, Coverage, Policy
from worker.engine.rendering import Renderer, pieces_of


class PackedBackend:
    """The engine's fast backend, for networks that `network.why_not` accepts."""

    padded = False

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        budget_tokens: int,
        policy: Policy = DEFAULT_POLICY,
        max_rows: int = 4096,
        is_compiled: bool = False,
        ahead: int | None = None,  # as `interfaces.Backend.ahead`; None: enough for the device never to wait
        streams: int = 0,  # passes in parallel on a CPU; 0: as many as it has threads, up to a few
        as_on_cuda: bool | None = None,  # behave as on CUDA, on any device; None: as the device is
        capture: Capture | None = None,  # records small passes on CUDA; None: launch each kernel by itself
    ) -> None:
        self.model: Model = loaded.identity
        self.device = str(loaded.device)
        self.budget_tokens, self.max_rows = budget_tokens, max_rows
        self._render = Renderer(loaded.prompter, max_positions=loaded.max_positions, policy=policy)
        self.max_prompt_tokens = self._render.max_prompt_tokens
        self.encode = encoder_of(loaded.tokenizer)
        self._ending = Ending(loaded.network, loaded.tokenizer, is_quantized=loaded.is_quantized)
        self._label_tokens = LabelTokens(self.encode, loaded.device)
        self.close, self.tree_nodes = self._ending.close, TREE_NODES
        probes = [loaded.prompter.encode([messages_of(probe) for probe in PROBES[responds]]) for responds in (False, True)]
        self._passes = passes = Passes(loaded, is_compiled=is_compiled, ahead=ahead, streams=streams, as_on_cuda=as_on_cuda)
        self.network, self.streams, self.ahead = passes.network, passes.streams, passes.ahead
        self._start, self._free, self._nothing, self.causal = passes.start, passes.free, passes.nothing, passes.causal
        self.modes = tuple(self._mode([probe.ids for probe in several], responds=i == 1) for i, several in enumerate(probes))
        self._graphs: Graphs | None = None
        if capture and passes.is_cuda:
            self._graphs = record(self.network, self._label_tokens, self.workspace(), self.modes, capture)
        if not budget_tokens:
            self.budget_tokens = batch_budget.first_guess(self.network, streams=self.streams, ahead=self.ahead)
        if loaded.device.type == "cuda":
            batch_budget.warm_up(self)

    def prepare(
        self, contents: Sequence[Content], coverage: Coverage | None = None, policy: PromptPolicy | None = None
    ) -> list[Prepared | Pieces | Unjudgeable]:
        """Tokenise all contents in one call; unusable conversations become `Unjudgeable`, long contents `Pieces`."""
        require_none(policy, self.model)
        return [pieces_of(rendered, self.row) for rendered in self._render(contents, coverage)]

    @property
    def choices(self) -> tuple[int, list[int], list[int], list[int | None]]:
        """After how many draft tokens the label is read, and what is chosen from there (`logits.LabelTokens`)."""
        found = self._label_tokens
        return len(found.label_prefix), found.severity_tokens, found.category_tokens, found.columns

    def workspace(self) -> Workspace:
        """Return memory for another pass."""
        return self._passes.workspace()

    def row(self, encoded: Encoded) -> PromptRow:
        """Return a prompt's row, without its mode's common prefix if it has that."""
        mode = self.modes[encoded.responds]
        prefix = mode.prefix if encoded.ids[: mode.prefix.n] == mode.prefix.ids else self._nothing
        own = np.array(encoded.ids[prefix.n :], np.int32)
        return PromptRow(own, mode, prefix, len(own) + mode.n_drafted, len(encoded.ids))

    def run(self, batch: Sequence[Prepared]) -> Sequence[Answer | Prepared]:
        """Return an answer for each complete row and a `Continuation` for each other, in order."""
        return self.launch(batch).collect()

    @torch.inference_mode()
    def launch(self, batch: Sequence[Prepared]) -> Launched:
        """As `interfaces.Backend.launch`. A pass owns its workspace until it is collected."""
        fresh = [row for row in batch if isinstance(row, PromptRow)]
        if 0 < len(fresh) < len(batch):
            return self._one_after_the_other(batch)
        workspace = self._free.popleft()
        launched: Launched | None = None
        try:
            with translating_faults(self.network.device):
                launched = self._first_pass(fresh, workspace) if fresh else self._further_pass(batch, workspace)
        finally:
            if launched is None:
                self._free.append(workspace)
        return launched._replace(
            collect=functools.partial(self._collect, launched.collect, workspace),
            recall=functools.partial(self._recall, launched.done, workspace),
        )

    def _recall(self, done: "Future[Any]", workspace: Workspace) -> bool:
        """Take back a pass that still waits for a stream."""
        if not done.cancel():
            return False
        self._free.append(workspace)
        return True

    @torch.inference_mode()
    def _collect(self, collect: Collect, workspace: Workspace) -> Sequence[Answer | Prepared]:
        try:
            with translating_faults(self.network.device):
                return collect()
        finally:
            self._free.append(workspace)
            for mode in self.modes:
                mode.redraft()

    def _one_after_the_other(self, batch: Sequence[Prepared]) -> Launched:
        """Run prompts and continuations of one batch separately, as after a failure."""
        done: dict[int, Answer | Prepared] = {}
        for is_fresh in (True, False):
            part = {i: row for i, row in enumerate(batch) if isinstance(row, PromptRow) is is_fresh}
            done |= zip(part, self.run(list(part.values())), strict=True)
        return Launched(lambda: [done[i] for i in range(len(batch))])

    def memory_bytes(self) -> int:
        """Return what torch has allocated on the GPU; 0 elsewhere."""
        return torch.cuda.memory_allocated(self.network.device) if self.network.device.type == "cuda" else 0

    def memory_total_bytes(self) -> int:
        """Return the memory of the GPU; 0 elsewhere."""
        return total_memory(self.network.device)

    def _first_pass(self, rows: Sequence[PromptRow], workspace: Workspace) -> Launched:
        """Launch prompts with drafts and asides; each is a chain, so plain causal attention suffices."""
        first = FirstPass(rows)
        geometry = first.geometry
        flight = self._graphs.launch(first) if self._graphs else None
        if flight:
            done, workspace = flight.done, flight.workspace
        else:
            attention = functools.partial(self.causal, workspace, geometry)
            done = self._start(self._pass, first.ids, geometry.positions(), geometry.reads(), attention)

        def collect() -> list[Answer | Prepared]:
            reads = done.result()
            reads.wait()
            out: dict[int, Answer | Prepared] = {}
            at = 0
            for part in first.parts:
                begins = geometry.first_reads[at : at + len(part.rows)]
                chosen = self._choices(part.rows, reads.tokens[begins[:, None] + np.arange(len(part.draft.parents))])
                is_whole, answers = answers_as_drafted(part, reads, begins, chosen, self._ending, self._label_tokens)
                whole = iter(answers)
                for i, is_done in enumerate(is_whole.tolist()):
                    out[part.indices[i]] = (
                        next(whole)
                        if is_done
                        else self._left_draft(part, i, reads, int(begins[i]), workspace, int(geometry.starts[at + i]))
                    )
                at += len(part.rows)
            return [out[i] for i in range(len(rows))]

        return Launched(flight.until(collect) if flight else collect, done)

    def _left_draft(self, part: Part, i: int, reads: Reads, at: int, workspace: Workspace, start: int) -> Answer | Prepared:
        """Handle a row whose answer differs from the draft; it keeps the keys and values of the part that matched."""
        row = part.rows[i]
        begun = Begun(categories=reads.categories(at + part.aside.read_at(part.draft)))
        end = start + len(row.ids) + len(self._verify(reads, at, part.draft, row, begun)) - 1
        return self._completed(row, begun) or Continuation(row, begun, workspace.kv[:, :, :, start:end].clone())

    def _further_pass(self, batch: Sequence[Prepared], workspace: Workspace) -> Launched:
        """Launch continuations: behind each row's own keys and values, its last token and a tree of possible next ones."""
        several = {i: row for i, row in enumerate(batch) if isinstance(row, Continuation)}
        order = sorted(several, key=lambda i: id(several[i].row.prefix))
        rows = [several[i] for i in order]
        trees = [row.row.mode.drafts.tree(row.begun.tokens, self.tree_nodes) for row in rows]
        further = FurtherPass(rows, trees)
        attention = functools.partial(TreeAttention, workspace, *further.behind, trees)
        done = self._start(self._pass, further.ids, further.positions, np.arange(len(further.ids)), attention)

        def collect() -> list[Answer | Prepared]:
            reads = done.result()
            reads.wait()
            out: dict[int, Answer | Prepared] = {}
            at = 0
            for i, row, tree in zip(order, rows, trees, strict=True):
                begun = row.begun.goes_on()
                fed = np.array([at + node for node in self._verify(reads, at, tree, row.row, begun)])
                answer = self._completed(row.row, begun)
                out[i] = answer or Continuation(row.row, begun, torch.cat([row.kv, workspace.taken(fed)], 3))
                at += len(tree.parents)
            return [out[i] for i in range(len(rows))]

        return Launched(collect, done)

    @torch.inference_mode()
    def _pass(self, ids: Ints, positions: Ints, reads: Ints, attention: Callable[[], Attention]) -> Reads:
        """Compute a pass on a stream; must not touch anything that learns."""
        return self._passes.compute(self._label_tokens, ids, positions, reads, attention)

    def hidden(self, ids: Ints, positions: Ints, reads: Ints, attention: Attention, depth: int | None = None) -> torch.Tensor:
        """Return the head's input at `reads`, followed by fillers; `depth`: use only this many layers."""
        return self._passes.hidden(ids, positions, reads, attention, depth)

    def _verify(self, reads: Reads, at: int, tree: Tree, row: PromptRow, begun: Begun) -> list[int]:
        """Append to `begun` what the model chose from the root on, as far as the tree foresaw it, and one more token.

        Returns the correct nodes, root included: those whose keys and values belong to the answer. `at` is the root's index among
        the reads.
        """
        visited = [0]
        while True:
            index = at + visited[-1]
            begun.note(reads, index, self._label_tokens)
            token = self._choice(row, begun.tokens, int(reads.tokens[index]))
            begun.tokens.append(token)
            child = None if self._ending.is_reached(begun) else tree.child(visited[-1], token)
            if child is None:
                return visited
            visited.append(child)

    def _choices(self, rows: Sequence[PromptRow], likeliest: Ints) -> Ints:
        """Return the choices at the root and behind each token of a draft, (rows, tokens)."""
        return likeliest

    def _choice(self, row: PromptRow, begun: Sequence[int], likeliest: int) -> int:
        """Return the answer's next token: greedy."""
        return likeliest

    def _completed(self, row: PromptRow, begun: Begun) -> Answer | None:
        """Return the answer if it is complete."""
        answer = self._ending.answer(begun, row.n_prompt, responds=row.mode.responds)
        if answer and answer.flaw is None and parse(answer.raw, responds=answer.responds) is not None:
            row.mode.observe(begun.tokens)
        return answer

    def _mode(self, prompts: Sequence[Sequence[int]], *, responds: bool) -> Mode:
        """Build a mode: the prompts' common beginning with its keys and values, and its possible answers."""
        seeds = grammar(self.encode, min(self._ending.ids), responds=responds)
        return Mode(self._prefix(shared_beginning(prompts)), Drafts(seeds), responds, self._label_tokens.unsafe_prefix)

    def _prefix(self, ids: tuple[int, ...]) -> Prefix:
        return self._passes.prefix(ids, self._label_tokens)
