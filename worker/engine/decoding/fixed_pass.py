"""A first pass of a fixed size over buffers that never move, so that its kernels can be recorded (`cuda_graphs`).

Two passes differ only in the numbers in the buffers, never in a shape. What rows leave free is filled with tokens and reads that
form a sequence of their own behind the rows, which does not affect them.
"""

from typing import NamedTuple

import numpy as np
import torch

from worker.engine.decoding.first_pass import FirstPass
from worker.engine.decoding.logits import LabelTokens
from worker.engine.forward.attention import Asking, Behind, Workspace
from worker.engine.forward.geometry import Ints, Prefix, Rows
from worker.engine.forward.network import PackedNetwork
from worker.engine.forward.varlen import Cuts, varlen_for

# Per row and per read: a short text has 120 tokens behind its prefix, and 10 reads. Attention's grid has a block for every possible
# row and every 128 tokens that it may have, used or not.
ROW_TOKENS, READ_TOKENS = 128, 8
PARTS = 3  # of a row: its own tokens, its aside, and what the aside does not see


class Size(NamedTuple):
    """What a pass has room for."""

    tokens: int

    @property
    def rows(self) -> int:
        """Number of rows, without the fillers."""
        return self.tokens // ROW_TOKENS

    @property
    def reads(self) -> int:
        """Number of tokens that are read, including those of asides."""
        return self.tokens // READ_TOKENS

    def takes(self, rows: Rows) -> bool:
        """Return whether a pass over these rows fits."""
        return rows.tokens <= self.tokens and len(rows.lengths) <= self.rows and rows.n_reads <= self.reads

    def bounds(self, own: Ints, aside: Ints, rest: Ints, end: int) -> Ints:
        """Return where each row's parts end (also for missing rows), and finally the fillers, at `end`."""
        ends = np.cumsum(np.stack([own, aside, rest], 1))
        out = np.full(self.bounds_of_parts, ends[-1])
        out[0], out[1 : len(ends) + 1], out[-1] = 0, ends, end
        return out

    @property
    def bounds_of_parts(self) -> int:
        """How many bounds there are."""
        return PARTS * self.rows + 2


class FixedAttention(Asking):
    """As `attention.VarlenAttention`, for rows with one prefix. The bounds are tensors (PARTS * rows + 2,) of any content.

    Asides are computed with all other queries, which see no keys there: the number of asides would be a shape.
    """

    def __init__(
        self, workspace: Workspace, size: Size, prefix: Prefix, tokens: torch.Tensor, reads: torch.Tensor, seen: torch.Tensor
    ) -> None:
        super().__init__(workspace, size.tokens)
        self._tokens = size.tokens
        self._varlen = varlen_for(workspace.device)
        # The longest lengths only matter as limits, and are part of the recording: use the largest possible.
        self._keys, self._seen = Cuts(tokens, size.tokens), Cuts(seen, size.tokens)
        self._asking = {False: self._keys, True: Cuts(reads, size.reads)}
        self._behind = {
            reads_only: Behind.each([(prefix, slice(0, 1))], np.array([n]), workspace.device)
            for reads_only, n in ((False, size.tokens), (True, size.reads))
        }

    def mix(self, layer: int, *, reads_only: bool) -> torch.Tensor:
        """Attend to own keys, then to what asides see of their rows, then to the prefix."""
        q, asking = self._asked(), self._asking[reads_only]
        k, v = self.room(layer, self._tokens)
        out, lse = self._varlen(q, k, v, asking, self._keys, causal=True)
        self._merge(out, lse, *self._varlen(q, k, v, asking, self._seen, causal=False), None)
        for behind in self._behind[reads_only]:
            self._merge(out, lse, *behind.found(q, layer, self._varlen), None)
        return out.flatten(1)


class FixedPass:
    """One size with one prefix. After `fill`, `logits` or `table` return what is read; keys and values are in the workspace.

    It may be filled again once its result has been read.
    """

    def __init__(self, network: PackedNetwork, label_tokens: LabelTokens, workspace: Workspace, size: Size, prefix: Prefix) -> None:
        self.size = size
        self._network, self._label_tokens = network, label_tokens
        self._longs = [size.tokens, size.tokens, size.reads]
        self._ints = [size.bounds_of_parts] * 3
        words = sum(self._longs) + -(-sum(self._ints) // 2)
        self._host = torch.zeros(words, dtype=torch.int64, pin_memory=network.device.type == "cuda")
        self._there = torch.zeros(words, dtype=torch.int64, device=network.device)
        self._ids, self._positions, self._reads, *bounds = self._parts(self._there)
        self._attention = FixedAttention(workspace, size, prefix, *bounds)

    def fill(self, first: FirstPass) -> None:
        """Load rows that fit the size: one copy, which the device may not have finished on return."""
        rows, size = first.geometry, self.size
        none, own = np.zeros_like(rows.lengths), rows.middles - rows.starts
        seen = own - rows.skips
        values = (
            first.ids,
            rows.positions(),
            rows.reads(),
            size.bounds(own, rows.asides, none, size.tokens),
            size.bounds(rows.tails, rows.is_aside.astype(np.int64), none, size.reads),
            size.bounds(none, seen, rows.lengths - seen, rows.tokens),
        )
        for part, new in zip(self._parts(self._host), values, strict=True):
            numbers = part.numpy()
            numbers[: len(new)], numbers[len(new) :] = new, 0
        self._there.copy_(self._host, non_blocking=True)

    def logits(self) -> torch.Tensor:
        """Return logits (reads, vocabulary); those of fillers come last and mean nothing."""
        hidden = self._network.forward(self._ids, self._positions, self._reads, self._attention)
        return self._network.logits(hidden)

    def table(self) -> torch.Tensor:
        """Return `LabelTokens.table` of the logits."""
        return self._label_tokens.table(self.logits())

    def _parts(self, words: torch.Tensor) -> list[torch.Tensor]:
        """Split the buffer: ids, positions and reads; then the bounds of tokens, reads and what asides see, in 32 bits."""
        longs, ints = words[: sum(self._longs)], words[sum(self._longs) :].view(torch.int32)
        return [*torch.split(longs, self._longs), *torch.split(ints[: sum(self._ints)], self._ints)]
