"""Labels under policies in one pass: packed rows behind the prefixes of their policies, the decision read off the next token.

Rows of any policies share a batch. A policy's prefix is computed before the first batch that has a row of it, and kept
(`policy_prefixes`). Where reasons are wanted, a row whose label is not the neutral one goes on as a `Writing` (`reasons`).
"""

import functools
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from guardfleet.domain.verdict import Model
from worker.engine.decoding import batch_budget
from worker.engine.decoding.decision import DecisionTokens, decided
from worker.engine.decoding.decision_pass import DecisionPass, PolicyRow
from worker.engine.decoding.logits import CLOSE, Reads, encoder_of, end_ids
from worker.engine.decoding.passes import Passes
from worker.engine.decoding.policy_prefixes import MOST_BYTES, MOST_POLICIES, PolicyPrefixes, Use
from worker.engine.decoding.policy_prompts import PolicyPrompts
from worker.engine.decoding.reasons import MOST_TOKENS, Reasons, Writing, WritingPass
from worker.engine.device import total_memory, translating_faults
from worker.engine.families.family import Grammar
from worker.engine.forward.attention import Workspace
from worker.engine.forward.geometry import Prefix
from worker.engine.forward.tree_attention import TreeAttention
from worker.engine.interfaces import Answer, Collect, Launched, Pieces, Prepared, Unjudgeable
from worker.engine.model.loading import LoadedModel
from worker.engine.model.memory import kept_bytes
from worker.engine.prompting.prompt import Content, Encoded
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.prompting.windows import DEFAULT_POLICY, Coverage, Policy
from worker.engine.rendering import pieces_of


class PolicyBackend:
    """The backend of families that give labels, for networks that `network.why_not` accepts; there is no other for them.

    `reasons`: also ask for the model's own words on why, of labels other than the neutral one. `min_tokens`: of a text, below which
    it is too short. `most_policies` and `most_policy_bytes`: kept beside those that rows need.
    """

    padded = False

    def __init__(
        self,
        loaded: LoadedModel,
        grammar: Grammar,
        *,
        budget_tokens: int = 0,
        policy: Policy = DEFAULT_POLICY,
        max_rows: int = 4096,
        min_tokens: int = 0,
        reasons: bool = False,
        reason_tokens: int = MOST_TOKENS,
        most_policies: int = MOST_POLICIES,
        most_policy_bytes: int = MOST_BYTES,
        is_compiled: bool = False,
        streams: int = 0,
        as_on_cuda: bool | None = None,
    ) -> None:
        self.model: Model = loaded.identity
        self.device = str(loaded.device)
        self.max_rows, self._reasons, self._min_tokens = max_rows, reasons, min_tokens
        encode = encoder_of(loaded.tokenizer)
        self.tokens = DecisionTokens(grammar, encode, loaded.device)
        self._close = CLOSE[torch.bfloat16 if loaded.is_quantized else loaded.network.dtype]
        ends = frozenset(end_ids(loaded.network, loaded.tokenizer))
        self._reason = Reasons(loaded.tokenizer, ends, grammar.closes, reason_tokens)
        self._neutral = grammar.labels.index(loaded.identity.neutral or "")
        self._said = loaded.tokenizer.decode
        self.passes = passes = Passes(loaded, is_compiled=is_compiled, streams=streams, as_on_cuda=as_on_cuda)
        self.network, self.streams, self.ahead = passes.network, passes.streams, passes.ahead
        self.causal, self.workspace = passes.causal, passes.workspace
        token_bytes = kept_bytes(passes.network.shape, passes.kept.itemsize)
        prompts = PolicyPrompts(loaded, grammar, policy, token_bytes)
        self.max_policy_tokens = prompts.max_policy_tokens
        self.policies = PolicyPrefixes(prompts.made, most=most_policies, most_bytes=most_policy_bytes)
        self.budget_tokens = budget_tokens or batch_budget.first_guess(
            self.network, streams=self.streams, ahead=self.ahead, spared=most_policy_bytes
        )
        if loaded.device.type == "cuda":
            batch_budget.warm_up(self, prompts.probe)

    def prepare(
        self, contents: Sequence[Content], coverage: Coverage | None = None, policy: PromptPolicy | None = None
    ) -> list[Prepared | Pieces | Unjudgeable]:
        """As `interfaces.Backend.prepare`. Raises RejectedError for a policy that this model cannot take."""
        use = self.policies.used(policy)
        row = functools.partial(self._row, use)
        return [pieces_of(rendered, row) for rendered in use.held.render(contents, coverage)]

    def _row(self, use: Use, encoded: Encoded) -> PolicyRow:
        held, n = use.held, len(encoded.ids)
        if n - held.n_frame < self._min_tokens:
            return PolicyRow(np.empty(0, np.int32), use, n, is_too_short=True, n_tokens=1)
        is_behind = encoded.ids[: len(held.ids)] == held.ids
        own = np.array(encoded.ids[len(held.ids) if is_behind else 0 :], np.int32)
        return PolicyRow(own, use, n, is_behind, n_tokens=len(own))

    def run(self, batch: Sequence[Prepared]) -> Sequence[Answer | Prepared]:
        """Return an answer for each complete row and a `Writing` for each other, in order."""
        return self.launch(batch).collect()

    @torch.inference_mode()
    def launch(self, batch: Sequence[Prepared]) -> Launched:
        """As `interfaces.Backend.launch`. A pass owns its workspace until it is collected."""
        fresh = [row for row in batch if isinstance(row, PolicyRow) and not row.is_too_short]
        writing = [row for row in batch if isinstance(row, Writing)]
        if not fresh and not writing:
            return Launched(lambda: [Answer("", is_too_short=True) for _ in batch])
        if max(len(fresh), len(writing)) < len(batch):
            return self._one_after_the_other(batch)
        with translating_faults(self.network.device):
            prefixes = [self.prefix_of(row) for row in fresh]
        workspace = self.passes.free.popleft()
        launched: Launched | None = None
        try:
            with translating_faults(self.network.device):
                launched = self._decide(fresh, prefixes, workspace) if fresh else self._write(writing, workspace)
        finally:
            if launched is None:
                self.passes.free.append(workspace)
        return launched._replace(
            collect=functools.partial(self._collect, launched.collect, workspace),
            recall=functools.partial(self._recall, launched.done, workspace),
        )

    def prefix_of(self, row: PolicyRow) -> Prefix:
        """Return what the row's prompt begins with, computed now if it never was; for the engine's thread only."""
        held = row.use.held
        if not row.is_behind:
            return self.passes.nothing
        if held.prefix is None:
            held.prefix = self.passes.start(self.passes.prefix, held.ids, self.tokens).result()
        return held.prefix

    def memory_bytes(self) -> int:
        """Return what torch has allocated on the GPU; 0 elsewhere."""
        return torch.cuda.memory_allocated(self.network.device) if self.network.device.type == "cuda" else 0

    def memory_total_bytes(self) -> int:
        """Return the memory of the GPU; 0 elsewhere."""
        return total_memory(self.network.device)

    def _recall(self, done: "Future[Any]", workspace: Workspace) -> bool:
        """Take back a pass that still waits for a stream."""
        if not done.cancel():
            return False
        self.passes.free.append(workspace)
        return True

    @torch.inference_mode()
    def _collect(self, collect: Collect, workspace: Workspace) -> Sequence[Answer | Prepared]:
        try:
            with translating_faults(self.network.device):
                return collect()
        finally:
            self.passes.free.append(workspace)

    def _one_after_the_other(self, batch: Sequence[Prepared]) -> Launched:
        """Run rows of several kinds separately: some are too short, or a batch failed."""
        done: dict[int, Answer | Prepared] = {}
        for kind in range(3):
            part = {i: row for i, row in enumerate(batch) if _kind(row) == kind}
            if part:
                done |= zip(part, self.run(list(part.values())), strict=True)
        return Launched(lambda: [done[i] for i in range(len(batch))])

    def _decide(self, rows: Sequence[PolicyRow], prefixes: Sequence[Prefix], workspace: Workspace) -> Launched:
        """Launch whole prompts."""
        laid = DecisionPass(rows, prefixes)
        geometry = laid.geometry
        attention = functools.partial(self.causal, workspace, geometry)
        done = self.passes.start(self.passes.compute, self.tokens, laid.ids, geometry.positions(), geometry.reads(), attention)

        def collect() -> list[Answer | Prepared]:
            reads = done.result()
            reads.wait()
            out: dict[int, Answer | Prepared] = {}
            for at, i in enumerate(laid.order):
                kv = workspace.kv[:, :, :, int(geometry.starts[at]) : int(geometry.ends[at])]
                out[i] = self._decided(rows[i], prefixes[i], reads, at, kv)
            return [out[i] for i in range(len(rows))]

        return Launched(collect, done)

    def _decided(self, row: PolicyRow, prefix: Prefix, reads: Reads, at: int, kv: torch.Tensor) -> Answer | Prepared:
        """Return the answer, or the row that goes on to write its reason."""
        allowed = row.use.held.allowed
        answer, column = decided(reads, at, allowed, self.tokens, close=self._close, said=self._said)
        answer = replace(answer, input_tokens=row.n_prompt)
        if not self._reasons or column is None or column == self._neutral:
            return answer
        feed = (self.tokens.tokens[column], *self.tokens.behind[column])
        return Writing(row, prefix, answer, feed, (), kv.clone())

    def _write(self, rows: Sequence[Writing], workspace: Workspace) -> Launched:
        """Launch the next token of each reason."""
        order = sorted(range(len(rows)), key=lambda i: id(rows[i].prefix))
        sorted_rows = [rows[i] for i in order]
        laid = WritingPass(sorted_rows)
        attention = functools.partial(TreeAttention, workspace, *laid.behind, laid.trees)
        every = np.arange(len(laid.ids))  # a further pass reads all of its nodes
        done = self.passes.start(self.passes.compute, self.tokens, laid.ids, laid.positions, every, attention)

        def collect() -> list[Answer | Prepared]:
            reads = done.result()
            reads.wait()
            out: dict[int, Answer | Prepared] = {}
            for i, row, at, span in zip(order, sorted_rows, laid.reads, laid.spans, strict=True):
                token = int(reads.tokens[at])
                written = (*row.written, token)
                if self._reason.is_complete(written) or not reads.are_finite(np.array([at]))[0]:
                    out[i] = self._reason.answer(row, written)
                else:
                    out[i] = replace(row, feed=(token,), written=written, kv=torch.cat([row.kv, workspace.taken(span)], 3))
            return [out[i] for i in range(len(rows))]

        return Launched(collect, done)


def _kind(row: Prepared) -> int:
    return 2 if isinstance(row, Writing) else int(isinstance(row, PolicyRow) and row.is_too_short)
