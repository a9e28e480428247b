"""Attention over packed rows: each row sees its mode's prefix and its own tokens up to itself, nothing of its neighbours.

`cpu_attention` is for CPUs, `VarlenAttention` for CUDA, `tree_attention` for further passes of rows that left the draft. Keys and
values of a pass are written to a workspace that is allocated once, so that a row can take its own along afterwards.

The constant prefix is never copied to its rows: all of them attend to its keys in one dense attention, to their own keys in
another, and the two are merged (`steps.merge`). The result equals softmax over both, in any order.
"""

from typing import NamedTuple

import numpy as np
import torch

from worker.engine.device import tensor_of
from worker.engine.forward.geometry import Ints, Prefix, Rows, starts_of
from worker.engine.forward.steps import steps_for
from worker.engine.forward.varlen import Cuts, Varlen, varlen_for
from worker.engine.model.shape import Shape

GROW = 1024  # the workspace grows in multiples of this many tokens
SPARE = 64  # extra tokens of room, for sizes that are rounded up


class Workspace:
    """Memory for one batch's keys and values, (layers, 2, kv_heads, tokens, head_dim); grows to the largest batch and stays.

    On CPUs also for its queries, in any order, and for attention's output: (tokens, heads * head_dim).
    """

    def __init__(self, shape: Shape, device: torch.device, dtype: torch.dtype) -> None:
        self.shape, self.device, self.dtype = shape, device, dtype
        self.tokens = 0
        self.kv = self.q = self.out = torch.empty(0, dtype=dtype, device=device)

    def fit(self, tokens: int) -> None:
        """Make room for a batch of this many tokens."""
        if tokens + SPARE <= self.tokens:
            return
        self.kv = self.q = self.out = torch.empty(0)  # free the old memory before allocating the new
        self.tokens = 0
        s, tokens = self.shape, -(-(tokens + SPARE) // GROW) * GROW
        self.kv = torch.empty(s.layers, 2, s.kv_heads, tokens, s.head_dim, dtype=self.dtype, device=self.device)
        if self.device.type == "cpu":
            self.q = torch.zeros(tokens * s.heads * s.head_dim, dtype=self.dtype)  # some behind the last are computed, and dropped
            self.out = torch.empty(tokens, s.heads * s.head_dim, dtype=self.dtype)
        self.tokens = tokens

    def taken(self, tokens: Ints) -> torch.Tensor:
        """Return a copy of the keys and values of some of the pass's tokens."""
        return self.kv.index_select(3, tensor_of(tokens, self.device))


class Storing:
    """Base of all kinds of attention: keys and values of the pass stay in the workspace, by head."""

    def __init__(self, workspace: Workspace, tokens: int) -> None:
        self._w = workspace
        workspace.fit(tokens)

    def store(self, layer: int, start: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """As `network.Attention.store`."""
        self._w.kv[layer, 0, :, start : start + len(k)].copy_(k.transpose(0, 1))
        self._w.kv[layer, 1, :, start : start + len(v)].copy_(v.transpose(0, 1))

    def room(self, layer: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As `network.Attention.room`."""
        k, v = self._w.kv[layer, :, :, :n].transpose(1, 2)
        return k, v


class Asking(Storing):
    """Base of the kinds that keep queries as they come: (n, heads, head_dim), in chunks."""

    def __init__(self, workspace: Workspace, tokens: int) -> None:
        super().__init__(workspace, tokens)
        self._merge = steps_for(workspace.device).merge
        self._q: list[torch.Tensor] = []

    def ask(self, start: int, q: torch.Tensor) -> None:
        """As `network.Attention.ask`."""
        self._q = [*self._q, q] if start else [q]

    def _asked(self) -> torch.Tensor:
        return torch.cat(self._q) if len(self._q) > 1 else self._q[0]


class Behind(NamedTuple):
    """Adjacent queries that all attend to one prefix."""

    prefix: Prefix
    asking: slice
    cut_q: Cuts
    cut_k: Cuts

    @classmethod
    def each(cls, rows: list[tuple[Prefix, slice]], counts: Ints, device: torch.device) -> "list[Behind]":
        """Build from groups of rows with `counts` queries each; a prefix without tokens is skipped."""
        bounds = np.concatenate([starts_of(counts), [counts.sum()]])
        out = []
        for prefix, some in rows:
            asking = slice(int(bounds[some.start]), int(bounds[some.stop]))
            if prefix.n:
                cut_q, cut_k = (Cuts.of([n], device) for n in (asking.stop - asking.start, prefix.n))
                out.append(cls(prefix, asking, cut_q, cut_k))
        return out

    def found(self, q: torch.Tensor, layer: int, varlen: Varlen) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the prefix gives them: mixture and log-sum-exp."""
        k, v = self.prefix.kv[layer].transpose(1, 2)
        return varlen(q[self.asking], k, v, self.cut_q, self.cut_k, causal=False)


class _Asked(NamedTuple):
    """The queries of a layer: of all tokens, or of those that are read."""

    own: Cuts
    behind: list[Behind]
    asides: torch.Tensor | None  # which queries belong to asides
    asides_cut: Cuts | None


class VarlenAttention(Asking):
    """Attention for CUDA: variable-length flash attention over the keys in place.

    An aside's tokens see the row's tokens before the part they replace. They are computed separately, in sequences that alternate
    with sequences without queries.
    """

    def __init__(self, workspace: Workspace, rows: Rows) -> None:
        super().__init__(workspace, rows.tokens)
        device = workspace.device
        self._tokens = rows.tokens
        self._varlen = varlen_for(device)
        self._cut_k = Cuts.of(_alternate(rows.middles - rows.starts, rows.asides), device)
        seen = rows.middles - rows.starts - rows.skips  # how much of a row its aside sees
        self._seen = Cuts.of(_alternate(seen, rows.lengths - seen), device) if len(rows.aside_tokens) else None
        one = rows.is_aside.astype(np.int64)
        self._of = {
            False: self._asked_of(rows, rows.middles - rows.starts, rows.asides, rows.aside_tokens),
            True: self._asked_of(rows, rows.tails, one, rows.aside_reads),
        }

    def _asked_of(self, rows: Rows, counts: Ints, asides: Ints, indices: Ints) -> _Asked:
        device = self._w.device
        return _Asked(
            Cuts.of(_alternate(counts, asides), device),
            Behind.each(rows.groups, counts + asides, device),
            tensor_of(indices, device) if len(indices) else None,
            Cuts.of(_alternate(asides, np.zeros_like(asides)), device) if len(indices) else None,
        )

    def mix(self, layer: int, *, reads_only: bool) -> torch.Tensor:
        """Attend to own keys, then to what asides see of their rows, then to the prefixes."""
        q, asked = self._asked(), self._of[reads_only]
        k, v = self.room(layer, self._tokens)
        out, lse = self._varlen(q, k, v, asked.own, self._cut_k, causal=True)
        if asked.asides is not None and asked.asides_cut is not None and self._seen is not None:
            mixed, other = self._varlen(q[asked.asides], k, v, asked.asides_cut, self._seen, causal=False)
            self._merge(out, lse, mixed, other, asked.asides)
        for behind in asked.behind:
            self._merge(out[behind.asking], lse[:, behind.asking], *behind.found(q, layer, self._varlen), None)
        return out.flatten(1)


def _alternate(one: Ints, other: Ints) -> Ints:
    return np.stack([one, other], 1).ravel()
