"""Attention over packed rows: each row sees the prefix of its mode and its own tokens up to itself, nothing of its neighbours.

`cpu_attention` is for CPUs, `VarlenAttention` for CUDA, `tree_attention` for the further passes of rows that left the draft. Keys
and values of a pass are written to a workspace that is allocated once, so that a row can take its own along afterwards.

A constant prefix is never copied to each of its rows: all of them ask its keys in one dense attention, their own in another, and
the two are merged (`steps.merge`). That is softmax over both, whatever their order.
"""

from typing import NamedTuple

import numpy as np
import torch

from worker.engine.device import tensor_of
from worker.engine.forward.geometry import Ints, Prefix, Rows, starts_of
from worker.engine.forward.steps import steps_for
from worker.engine.forward.varlen import Cuts, Varlen, varlen_for
from worker.engine.model.shape import Shape

GROW = 1024  # the workspace grows by whole multiples of this many tokens
SPARE = 64  # tokens of room beyond a batch, for sizes that are rounded up


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
            self.q = torch.zeros(tokens * s.heads * s.head_dim, dtype=self.dtype)  # some behind the last are computed, and dropped
            self.out = torch.empty(tokens, s.heads * s.head_dim, dtype=self.dtype)
        self.tokens = tokens

    def taken(self, tokens: Ints) -> torch.Tensor:
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

    def room(self, layer: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As `network.Attention.room`."""
        k, v = self._w.kv[layer, :, :, :n].transpose(1, 2)
        return k, v


class Asking(Storing):
    """Those that keep the queries as they come: (n, heads, head_dim), in chunks."""

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
    """Queries, next to each other, that all ask one prefix."""

    prefix: Prefix
    asking: slice
    cut_q: Cuts
    cut_k: Cuts

    @classmethod
    def each(cls, rows: list[tuple[Prefix, slice]], counts: Ints, device: torch.device) -> "list[Behind]":
        """Of groups of rows that ask so many queries each; a prefix without tokens is not asked."""
        bounds = np.concatenate([starts_of(counts), [counts.sum()]])
        out = []
        for prefix, some in rows:
            asking = slice(int(bounds[some.start]), int(bounds[some.stop]))
            if prefix.n:
                cut_q, cut_k = (Cuts.of([n], device) for n in (asking.stop - asking.start, prefix.n))
                out.append(cls(prefix, asking, cut_q, cut_k))
        return out

    def found(self, q: torch.Tensor, layer: int, varlen: Varlen) -> tuple[torch.Tensor, torch.Tensor]:
        """What the prefix says to them: mixture and log-sum-exp."""
        k, v = self.prefix.kv[layer].transpose(1, 2)
        return varlen(q[self.asking], k, v, self.cut_q, self.cut_k, causal=False)


class _Asked(NamedTuple):
    """Who asks in a layer: all tokens, or those that are read."""

    own: Cuts
    behind: list[Behind]
    asides: torch.Tensor | None  # which of the queries are of asides
    asides_cut: Cuts | None


class VarlenAttention(Asking):
    """For CUDA: variable-length flash attention over the keys where they lie.

    An aside's tokens see the row's before the part whose place they take: these are asked apart, in sequences between which lie
    others without queries.
    """

    def __init__(self, workspace: Workspace, rows: Rows) -> None:
        super().__init__(workspace, rows.tokens)
        device = workspace.device
        self._tokens = rows.tokens
        self._varlen = varlen_for(device)
        self._cut_k = Cuts.of(_alternate(rows.middles - rows.starts, rows.asides), device)
        seen = rows.middles - rows.starts - rows.skips  # of a row by its aside
        self._seen = Cuts.of(_alternate(seen, rows.lengths - seen), device) if len(rows.aside_tokens) else None
        one = rows.is_aside.astype(np.int64)
        self._of = {
            False: self._asked_of(rows, rows.middles - rows.starts, rows.asides, rows.aside_tokens),
            True: self._asked_of(rows, rows.tails, one, rows.aside_reads),
        }

    def _asked_of(self, rows: Rows, counts: Ints, asides: Ints, places: Ints) -> _Asked:
        device = self._w.device
        return _Asked(
            Cuts.of(_alternate(counts, asides), device),
            Behind.each(rows.groups, counts + asides, device),
            tensor_of(places, device) if len(places) else None,
            Cuts.of(_alternate(asides, np.zeros_like(asides)), device) if len(places) else None,
        )

    def mix(self, layer: int, *, reads_only: bool) -> torch.Tensor:
        """Own keys, then what asides see of their rows, then the prefixes."""
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
