"""Attention over packed rows: each row sees the prefix of its mode and its own tokens up to itself, nothing of its neighbours.

`cpu_attention` is for CPUs, `VarlenAttention` for CUDA, `TreeAttention` for the second pass of rows that left the draft.
Keys and values of a pass are written to a workspace that is allocated once, so that a row can take its own along afterwards.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from worker.engine.network import Shape, tensor_of

GROW = 1024  # the workspace grows by whole multiples of this many tokens
SPARE = 64  # tokens of room beyond a batch, for sizes that are rounded up


@dataclass(frozen=True)
class Prefix:
    """Tokens that prompts of one mode begin with, and their keys and values: (layers, 2, kv_heads, tokens, head_dim)."""

    ids: tuple[int, ...]
    kv: torch.Tensor

    @property
    def n(self) -> int:
        """Its length in tokens."""
        return len(self.ids)


class Run(NamedTuple):
    """Tokens of a row that see all before them in it: `tokens` of the batch, the first of them at `at` in the row.

    `queries` of the batch, or of its reads, ask in it: those of the row's last tokens, up to the run's end.
    """

    tokens: range
    at: int
    queries: range

    @property
    def n(self) -> int:
        """How many tokens of the row the last of the run sees, itself included."""
        return self.at + len(self.tokens)


@dataclass(frozen=True)
class Rows:
    """The geometry of a packed batch: per row its tokens, how many of the last ones are read, and the prefix it continues.

    A row may end in an aside: `asides[i]` tokens that take the place of the `skips[i]` before them, whom they do not see and who do
    not see them. Its last token is read, and counted by no tail.
    """

    lengths: Sequence[int]
    tails: Sequence[int]
    prefixes: Sequence[Prefix]
    asides: Sequence[int] = ()
    skips: Sequence[int] = ()

    @functools.cached_property
    def spans(self) -> list[tuple[int, int]]:
        """Where each row lies in the batch."""
        return list(itertools.pairwise(itertools.accumulate(self.lengths, initial=0)))

    @functools.cached_property
    def runs(self) -> list[list[Run]]:
        """Of each row its run, and its aside's; all tokens of the batch ask, in order."""
        out = []
        for (start, end), aside, skip in zip(self.spans, *self._aside_and_skip(), strict=True):
            middle = end - aside
            out.append([Run(range(start, middle), 0, range(start, middle))])
            if aside:
                out[-1].append(Run(range(middle, end), middle - start - skip, range(middle, end)))
        return out

    @functools.cached_property
    def read_runs(self) -> list[list[Run]]:
        """The same where only the tokens that are read ask, in order."""
        out, at = [], 0
        for runs, tail in zip(self.runs, self.tails, strict=True):
            out.append(
                [
                    runs[0]._replace(queries=range(at, at + tail)),
                    *(run._replace(queries=range(at + tail, at + tail + 1)) for run in runs[1:]),
                ]
            )
            at = out[-1][-1].queries.stop
        return out

    @functools.cached_property
    def keys(self) -> list[int]:
        """How many keys the tokens of each row see at most."""
        return [prefix.n + max(run.n for run in runs) for prefix, runs in zip(self.prefixes, self.runs, strict=True)]

    def positions(self) -> list[int]:
        """Each token's position in its own prompt."""
        return [
            p
            for prefix, runs in zip(self.prefixes, self.runs, strict=True)
            for run in runs
            for p in range(prefix.n + run.at, prefix.n + run.n)
        ]

    def reads(self) -> list[int]:
        """Indices of the tokens that are read: of each row the tail, and the last of the aside."""
        out: list[int] = []
        for runs, tail in zip(self.runs, self.tails, strict=True):
            out += runs[0].tokens[len(runs[0].tokens) - tail :]
            out += [run.tokens[-1] for run in runs[1:]]
        return out

    def _aside_and_skip(self) -> tuple[Sequence[int], Sequence[int]]:
        none = [0] * len(self.lengths)
        return self.asides or none, self.skips or none


class Workspace:
    """Room for the keys and values of one batch, (layers, 2, kv_heads, tokens, head_dim), grown to the largest seen and kept.

    On CPUs also for its queries, in whatever order, and for what attention gives: (tokens, heads * head_dim).
    """

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.shape, self.device, self.dtype = shape, device, dtype
        self.tokens = 0
        self.kv = self.q = self.out = torch.empty(0, dtype=dtype, device=device)

    def fit(self, tokens: int) -> None:
        """Make room for a batch of so many tokens."""
        if tokens + SPARE <= self.tokens:
            return
        self.kv = self.q = self.out = torch.empty(0)  # let go of the old before asking for the new
        self.tokens = 0
        s, tokens = self.shape, -(-(tokens + SPARE) // GROW) * GROW
        self.kv = torch.empty(s.layers, 2, s.kv_heads, tokens, s.head_dim, dtype=self.dtype, device=self.device)
        if self.device.type == "cpu":
            self.q = torch.empty(tokens * s.heads * s.head_dim, dtype=self.dtype)
            self.out = torch.empty(tokens, s.heads * s.head_dim, dtype=self.dtype)
        self.tokens = tokens

    def taken(self, tokens: Sequence[int]) -> torch.Tensor:
        """A copy of the keys and values of some of the pass's tokens."""
        return self.kv.index_select(3, tensor_of(tokens, self.device))


class Storing:
    """What the kinds of attention have in common: keys and values of the pass stay in the workspace, by head."""

    def __init__(self, workspace: Workspace, tokens: int) -> None:
        self._w = workspace
        workspace.fit(tokens)

    def store(self, layer: int, start: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """As `network.Attention.store`."""
        self._w.kv[layer, 0, :, start : start + len(k)].copy_(k.transpose(0, 1))
        self._w.kv[layer, 1, :, start : start + len(v)].copy_(v.transpose(0, 1))


class _Gathering(Storing):
    """Keys and values of all rows are gathered once a layer, out of [distinct prefixes | contexts | tokens of the pass]."""

    def __init__(
        self, workspace: Workspace, tokens: int, prefixes: Sequence[Prefix], contexts: Sequence[torch.Tensor] = ()
    ) -> None:
        super().__init__(workspace, tokens)
        self._tokens, self._contexts = tokens, contexts
        self._distinct = list({id(prefix): prefix for prefix in prefixes}.values())
        bounds = itertools.accumulate([prefix.n for prefix in self._distinct] + [c.shape[3] for c in contexts], initial=0)
        spans = [range(a, b) for a, b in itertools.pairwise(bounds)]
        of_prefix = dict(zip(map(id, self._distinct), spans, strict=False))
        self._prefix_places = [of_prefix[id(prefix)] for prefix in prefixes]
        self._context_places = spans[len(self._distinct) :]
        self._own = spans[-1].stop if spans else 0  # the place of the pass's first token

    def _gather(self, layer: int, places: torch.Tensor) -> list[torch.Tensor]:
        """Keys and values at these places: (kv_heads, places, head_dim) each."""
        return [
            torch.cat(
                [
                    *(prefix.kv[layer, part] for prefix in self._distinct),
                    *(context[layer, part] for context in self._contexts),
                    self._w.kv[layer, part, :, : self._tokens],
                ],
                1,
            ).index_select(1, places)
            for part in (0, 1)
        ]


class VarlenAttention(_Gathering):
    """For CUDA: one variable-length flash attention a layer over the gathered keys."""

    def __init__(self, workspace: Workspace, rows: Rows) -> None:
        super().__init__(workspace, sum(rows.lengths), rows.prefixes)
        places: list[int] = []
        keys: list[int] = []
        for prefix, runs in zip(self._prefix_places, rows.runs, strict=True):
            for run in runs:  # an aside has the keys before it gathered once more
                begun = len(places)
                places += prefix
                places += (self._own + runs[0].tokens.start + at for at in range(run.at))
                places += (self._own + token for token in run.tokens)
                keys.append(len(places) - begun)
        device = workspace.device
        self._places = tensor_of(places, device)
        self._cu_k, self._max_k = _cumulative(keys, device), max(keys)
        asked = {
            reads_only: [len(run.queries) for runs in several for run in runs]
            for reads_only, several in ((False, rows.runs), (True, rows.read_runs))
        }
        self._cu_q = {reads_only: _cumulative(lengths, device) for reads_only, lengths in asked.items()}
        self._max_q = {reads_only: max(lengths) for reads_only, lengths in asked.items()}
        self._q: list[torch.Tensor] = []

    def ask(self, start: int, q: torch.Tensor) -> None:
        """Keep the queries."""
        self._q = [*self._q, q] if start else [q]

    def mix(self, layer: int, *, reads_only: bool) -> torch.Tensor:
        """Gather and attend; causal with more keys than queries is aligned at the bottom right (tests/gpu holds it)."""
        q = torch.cat(self._q) if len(self._q) > 1 else self._q[0]
        k, v = (part.transpose(0, 1) for part in self._gather(layer, self._places))
        mixed = flash_varlen(q, k, v, self._cu_q[reads_only], self._cu_k, self._max_q[reads_only], self._max_k)
        return mixed.flatten(1)


def flash_varlen(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_q: Any, cu_k: Any, max_q: int, max_k: int) -> torch.Tensor:
    """Torch's own variable-length flash attention, causal: q (queries, heads, head_dim), k and v (keys, kv_heads, head_dim)."""
    from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - CUDA only

    mixed = varlen_attn(q, k.contiguous(), v.contiguous(), cu_q, cu_k, max_q, max_k, window_size=(-1, 0), enable_gqa=True)
    return mixed if isinstance(mixed, torch.Tensor) else mixed[0]


class TreeAttention(_Gathering):
    """For the few tokens of a second pass: rows padded to one rectangle, each node sees its context and its ancestors.

    `contexts` are the rows' own keys and values, (layers, 2, kv_heads, n, head_dim); `parents[i][j]` is the index of the node
    before node j of row i, -1 for the first.
    """

    def __init__(
        self, workspace: Workspace, prefixes: Sequence[Prefix], contexts: Sequence[torch.Tensor], parents: Sequence[Sequence[int]]
    ) -> None:
        counts = [len(row) for row in parents]
        super().__init__(workspace, sum(counts), prefixes, contexts)
        known = [prefix.n + context.shape[3] for prefix, context in zip(prefixes, contexts, strict=True)]
        widest, self._deepest, self._n = max(known), max(counts), len(parents)
        seen = torch.zeros(len(parents), self._deepest, widest + self._deepest, dtype=torch.bool)
        places: list[int] = []
        at = self._own
        for i, row in enumerate(parents):
            places += [*self._prefix_places[i], *self._context_places[i], *[0] * (widest - known[i])]
            places += [*range(at, at + len(row)), *[0] * (self._deepest - len(row))]
            at += len(row)
            seen[i, :, : known[i]] = True
            for j, parent in enumerate(row):
                if parent >= 0:
                    seen[i, j, widest:] = seen[i, parent, widest:]
                seen[i, j, widest + j] = True
        device, s = workspace.device, workspace.shape
        self._mask = seen[:, None].to(device)
        self._places = tensor_of(places, device)
        self._queries = tensor_of([i * self._deepest + j for i, count in enumerate(counts) for j in range(count)], device)
        self._q = torch.zeros(len(parents) * self._deepest, s.heads, s.head_dim, dtype=workspace.dtype, device=device)
        self._asked = 0

    def ask(self, start: int, q: torch.Tensor) -> None:
        """Lay the queries into the rectangle."""
        self._q[self._queries[start : start + len(q)]] = q[: len(self._queries) - start]
        self._asked = start + len(q)

    def mix(self, layer: int, *, reads_only: bool) -> torch.Tensor:
        """Attend over prefix, context and ancestors."""
        k, v = (part.view(part.shape[0], self._n, -1, part.shape[2]).transpose(0, 1) for part in self._gather(layer, self._places))
        q = self._q.view(self._n, self._deepest, *self._q.shape[1:]).transpose(1, 2)
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=self._mask, enable_gqa=True)
        out = mixed.new_zeros(self._asked, q.shape[1] * q.shape[3])
        out[: self._tokens] = mixed.transpose(1, 2).flatten(0, 1)[self._queries].flatten(1)
        return out


def _cumulative(lengths: Sequence[int], device: torch.device) -> torch.Tensor:
    bounds = list(itertools.accumulate(lengths, initial=0))
    return torch.tensor(bounds, dtype=torch.int32).to(device, non_blocking=True)
