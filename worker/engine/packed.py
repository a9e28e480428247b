"""Exact greedy answers in one pass: packed rows, the constant prefix computed once, the answer drafted and verified in place.

Pass 1 reads prompt and draft together: where the model's own choice at each position is the drafted token, the answer is done. A
row that leaves the draft comes back as a `Continuation`, which the engine pools with others; its pass verifies a tree of likely
continuations behind the keys and values it kept. A tree may be empty: that is plain greedy decoding, a token a pass. Whatever is
drafted, the answer is the one that `generate` would give token by token.
"""

import functools
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import torch

from guardfleet.verdict import Model
from worker.answer import parse
from worker.engine import budget
from worker.engine.attention import Prefix, Rows, TreeAttention, VarlenAttention, Workspace
from worker.engine.contract import Answer, Collect, Launched, Pieces, Prepared, Unjudgeable
from worker.engine.cpu_attention import HeadwiseAttention, RowwiseAttention, fastest
from worker.engine.device import translating_faults
from worker.engine.drafts import Drafts, Tree, grammar
from worker.engine.loading import LoadedModel
from worker.engine.modes import PROBES, Mode, shared_beginning
from worker.engine.network import Attention, PackedNetwork, tensor_of
from worker.engine.progress import Begun, Continuation, Ending, PromptRow, laid_out
from worker.engine.reading import Odds, Reads
from worker.engine.rendering import Renderer, pieces_of
from worker.engine.streams import ahead_of, open_streams, streams_for
from worker.prompt import Content, Encoded, messages_of
from worker.windows import DEFAULT_POLICY, Coverage, Policy

TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}  # of the largest logit, in the self test
QUANTIZED_TOLERANCE = 5e-2  # a rounding error flips a step of eight bits
TREE_NODES = 16  # per row of a second pass


class SelfTestError(Exception):
    """The packed pass does not agree with transformers' own on this model and device."""


class PackedBackend:
    """The engine's fast inside, for the networks that `network.why_not` has nothing against."""

    padded = False

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        budget_tokens: int,
        policy: Policy = DEFAULT_POLICY,
        max_rows: int = 4096,
        is_compiled: bool = False,
        ahead: int | None = None,  # as `contract.Backend.ahead`; None: so that the device always has one to begin with
        streams: int = 0,  # passes beside each other on a CPU; 0: as many as it has threads, up to a few
    ) -> None:
        self.model: Model = loaded.identity
        self.device = str(loaded.device)
        self.budget_tokens, self.max_rows = budget_tokens, max_rows
        self._render = Renderer(loaded.prompter, max_positions=loaded.max_positions, policy=policy)
        self.max_prompt_tokens = self._render.max_prompt_tokens
        self._tokenizer = loaded.tokenizer
        self._ending = Ending(loaded.network, loaded.tokenizer)
        self._odds = Odds(self.encode, loaded.device)
        probes = [loaded.prompter.encode([messages_of(probe) for probe in PROBES[responds]]) for responds in (False, True)]
        asked = [probe.ids for several in probes for probe in several]
        expected = _last_logits(loaded.network, [*asked, *(ids + self._odds.unsafe_prefix for ids in asked)])
        self.network = PackedNetwork(loaded.network, is_compiled=is_compiled)
        self._tolerance = QUANTIZED_TOLERANCE if loaded.is_quantized else TOLERANCE[self.network.dtype]
        self.streams = streams_for(loaded.device, streams)
        opened = open_streams(self.streams)
        self._start = opened.submit
        self.ahead = ahead_of(loaded.device, self.streams) if ahead is None else ahead
        rooms = (Workspace(self.network.shape, loaded.device, self.network.dtype) for _ in range(self.ahead + 1))
        self._free = deque(rooms)
        shape, like = self.network.shape, {"dtype": self.network.dtype, "device": loaded.device}
        self._nothing = Prefix((), torch.empty(shape.layers, 2, shape.kv_heads, 0, shape.head_dim, **like))
        self.causal: type[VarlenAttention | HeadwiseAttention | RowwiseAttention] = VarlenAttention
        if loaded.device.type == "cpu":
            self.causal = fastest(shape, self.network.dtype, opened, self.streams)
        self.modes = tuple(self._mode([probe.ids for probe in several], responds=i == 1) for i, several in enumerate(probes))
        self._self_test([*probes[0], *probes[1]], expected)
        if not budget_tokens:
            self.budget_tokens = budget.first_guess(self.network, streams=self.streams, ahead=self.ahead)
        if loaded.device.type == "cuda":
            budget.warm_up(self)

    def prepare(self, contents: Sequence[Content], coverage: Coverage | None = None) -> list[Prepared | Pieces | Unjudgeable]:
        """Tokenise all contents in one call; unusable conversations are told apart, long ones come in pieces."""
        return [pieces_of(rendered, self._row) for rendered in self._render(contents, coverage)]

    def _row(self, encoded: Encoded) -> PromptRow:
        mode = self.modes[encoded.responds]
        prefix = mode.prefix if encoded.ids[: mode.prefix.n] == mode.prefix.ids else self._nothing
        own = encoded.ids[prefix.n :]
        return PromptRow(own, mode, prefix, len(own) + mode.n_drafted, len(encoded.ids))

    def run(self, batch: Sequence[Prepared]) -> Sequence[Answer | Prepared]:
        """An answer for each row that is done, a `Continuation` for each that is not, in order."""
        return self.launch(batch).collect()

    @torch.inference_mode()
    def launch(self, batch: Sequence[Prepared]) -> Launched:
        """As `contract.Backend.launch`. A pass has its workspace to itself until it is collected."""
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
        """A pass that waits for a stream can be taken back."""
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
        """Prompts and continuations in one batch, as after a failure: no work is shared."""
        done: dict[int, Answer | Prepared] = {}
        for is_fresh in (True, False):
            part = {i: row for i, row in enumerate(batch) if isinstance(row, PromptRow) is is_fresh}
            done |= zip(part, self.run(list(part.values())), strict=True)
        return Launched(lambda: [done[i] for i in range(len(batch))])

    def memory_bytes(self) -> int:
        """What torch has allocated on the GPU; 0 elsewhere."""
        return torch.cuda.memory_allocated(self.network.device) if self.network.device.type == "cuda" else 0

    def _first_pass(self, rows: Sequence[PromptRow], workspace: Workspace) -> Launched:
        """Prompts, drafts and asides; each is a chain, so that plain causal attention is all that is needed."""
        drafted, geometry, ids = laid_out(rows)
        attention = functools.partial(self.causal, workspace, geometry)
        done = self._start(self._pass, ids, geometry.positions(), geometry.reads(), attention)

        def collect() -> list[Answer | Prepared]:
            reads = done.result()
            reads.wait()
            out: list[Answer | Prepared] = []
            at = 0
            for (row, tree, aside), (start, _) in zip(drafted, geometry.spans, strict=True):
                begun = Begun(categories=reads.categories(at + aside.read_at(tree)))
                end = start + len(row.ids) + len(self._verify(reads, at, tree, row, begun)) - 1
                answer = self._settled(row, begun)
                out.append(answer or Continuation(row, begun, workspace.kv[:, :, :, start:end].clone()))
                at += len(tree.parents) + bool(aside.tokens)
            return out

        return Launched(collect, done)

    def _further_pass(self, batch: Sequence[Prepared], workspace: Workspace) -> Launched:
        """Behind each row's own keys and values: its last token, and a tree of what may come after it."""
        rows = [row for row in batch if isinstance(row, Continuation)]
        trees = [row.row.mode.drafts.tree(row.begun.tokens, TREE_NODES) for row in rows]
        ids = [token for row, tree in zip(rows, trees, strict=True) for token in (row.begun.tokens[-1], *tree.tokens)]
        positions = [
            row.row.prefix.n + row.n_tokens + depth for row, tree in zip(rows, trees, strict=True) for depth in tree.depths
        ]
        prefixes, parents = [row.row.prefix for row in rows], [tree.parents for tree in trees]
        attention = functools.partial(TreeAttention, workspace, prefixes, [row.kv for row in rows], parents)
        done = self._start(self._pass, ids, positions, range(len(ids)), attention)

        def collect() -> list[Answer | Prepared]:
            reads = done.result()
            reads.wait()
            out: list[Answer | Prepared] = []
            at = 0
            for row, tree in zip(rows, trees, strict=True):
                begun = row.begun.goes_on()
                fed = [at + node for node in self._verify(reads, at, tree, row.row, begun)]
                answer = self._settled(row.row, begun)
                out.append(answer or Continuation(row.row, begun, torch.cat([row.kv, workspace.taken(fed)], 3)))
                at += len(tree.parents)
            return out

        return Launched(collect, done)

    @torch.inference_mode()
    def _pass(
        self, ids: Sequence[int], positions: Sequence[int], reads: Sequence[int], attention: Callable[[], Attention]
    ) -> Reads:
        """On a stream: nothing that learns is touched here."""
        hidden = self._hidden(ids, positions, reads, attention())
        found = Reads(self._odds)
        for at in range(0, len(reads), self.network.head_rows):
            part = hidden[at : at + self.network.head_rows]
            found.add(self.network.logits(part)[: len(reads) - at])
        return found

    def _hidden(self, ids: Sequence[int], positions: Sequence[int], reads: Sequence[int], attention: Attention) -> torch.Tensor:
        """What the head reads at `reads`, with fillers behind."""
        step, device = self.network.step, self.network.device
        fill, spare = [0] * (-len(ids) % step), [0] * (-len(reads) % step)
        return self.network.forward(
            tensor_of([*ids, *fill], device), tensor_of([*positions, *fill], device), tensor_of([*reads, *spare], device), attention
        )

    def _verify(self, reads: Reads, at: int, tree: Tree, row: PromptRow, begun: Begun) -> list[int]:
        """Append to `begun` what the model chose from the root on, as far as the tree foresaw it, and one token more.

        Returns the nodes that were right, root included: those whose keys and values belong to the answer. `at` is the root's
        place among the reads.
        """
        visited = [0]
        while True:
            index = at + visited[-1]
            begun.note(reads, index, self._odds)
            token = self._choice(row, begun.tokens, reads.tokens[index])
            begun.tokens.append(token)
            child = None if self._ending.is_reached(begun) else tree.child(visited[-1], token)
            if child is None:
                return visited
            visited.append(child)

    def _choice(self, row: PromptRow, begun: Sequence[int], likeliest: int) -> int:
        """The answer's next token: greedy."""
        return likeliest

    def _settled(self, row: PromptRow, begun: Begun) -> Answer | None:
        """The answer, if it is complete."""
        answer = self._ending.answer(begun, row.n_prompt, responds=row.mode.responds)
        if answer and answer.flaw is None and parse(answer.raw, responds=answer.responds) is not None:
            row.mode.observe(begun.tokens)
        return answer

    def encode(self, text: str) -> list[int]:
        """An answer, or a part of one, as tokens."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _mode(self, prompts: Sequence[Sequence[int]], *, responds: bool) -> Mode:
        """What these prompts begin with, its keys and values, and the answers there are."""
        seeds = grammar(self.encode, min(self._ending.ids), responds=responds)
        return Mode(self._prefix(shared_beginning(prompts)), Drafts(seeds), responds, self._odds.unsafe_prefix)

    @torch.inference_mode()
    def _prefix(self, ids: tuple[int, ...]) -> Prefix:
        geometry = Rows([len(ids)], [1], [self._nothing])
        workspace = self._free[0]
        self._pass(ids, geometry.positions(), geometry.reads(), functools.partial(self.causal, workspace, geometry))
        return Prefix(ids, workspace.kv[:, :, :, : len(ids)].clone())

    @torch.inference_mode()
    def _self_test(self, probes: Sequence[Encoded], expected: Sequence[torch.Tensor]) -> None:
        """Hold the pass against transformers' own forward, which knows nothing of packing, prefixes and asides.

        `expected`: behind each probe, then behind each with the question.
        """
        drafted, geometry, ids = laid_out([self._row(probe) for probe in probes])
        attention = self.causal(self._free[0], geometry)
        logits = self.network.logits(self._hidden(ids, geometry.positions(), geometry.reads(), attention))
        starts = itertools.accumulate((len(tree.parents) + bool(aside.tokens) for _, tree, aside in drafted), initial=0)
        places = [(at, at + aside.read_at(tree)) for at, (_, tree, aside) in zip(starts, drafted, strict=False)]
        found = logits[[at for at, _ in places] + [at for _, at in places]]
        for one, other in zip(found.float(), expected, strict=True):
            off = (one - other.float()).abs().max().item()
            if not off <= self._tolerance * max(1.0, other.float().abs().max().item()):
                raise SelfTestError(f"the packed pass is off by {off:.3g} from the model's own")


@torch.inference_mode()
def _last_logits(network: Any, prompts: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    """What transformers' forward predicts after each prompt."""
    ids = [torch.tensor([prompt], device=network.device) for prompt in prompts]
    return [network(input_ids=row, logits_to_keep=1).logits[0, -1] for row in ids]
