"""Attention of a further pass: an answer's last token and a tree of possible next ones, behind the row's own keys.

Rows may have any lengths: their keys are read in place, sequence by sequence, never padded to the longest (380 rows of 120 tokens
and one of 8,000 would take 12.8 GB per layer). Only the nodes of the trees, a few each, form a rectangle.
"""

from collections.abc import Sequence

import numpy as np
import torch

from worker.engine.device import tensor_of
from worker.engine.forward.attention import Asking, Behind, Workspace
from worker.engine.forward.geometry import Prefix, Rows, spread, starts_of
from worker.engine.forward.tree import Tree
from worker.engine.forward.varlen import Cuts, attend, varlen_for
from worker.engine.model.memory import kept_bytes

GATHER_BYTES = 1 << 30  # keys and values of all rows are concatenated for as many layers at a time as fit in this


class TreeAttention(Asking):
    """Lets each node see the prefix, its row's context and its ancestors: three attentions, merged.

    `contexts` are the rows' own keys and values, (layers, 2, kv_heads, n, head_dim). Rows with the same prefix are adjacent.
    """

    def __init__(
        self, workspace: Workspace, prefixes: Sequence[Prefix], contexts: Sequence[torch.Tensor], trees: Sequence[Tree]
    ) -> None:
        counts = np.array([len(tree.parents) for tree in trees], np.int64)
        self._nodes = int(counts.sum())
        super().__init__(workspace, self._nodes)
        device = workspace.device
        self._varlen = varlen_for(device)
        self._behind = Behind.each(Rows(counts, counts, prefixes).groups, counts, device)
        self._contexts = contexts
        known = np.array([context.shape[3] for context in contexts], np.int64)
        self._cut_q, self._cut_k = Cuts.of(counts, device), Cuts.of(known, device)
        of_token = kept_bytes(workspace.shape._replace(layers=1), workspace.dtype.itemsize)
        self._layers = max(1, GATHER_BYTES // max(1, int(known.sum()) * of_token))
        self._gathered: tuple[int, torch.Tensor] | None = None  # the first layer it holds
        widest = int(counts.max(initial=1))
        starts, nodes = starts_of(counts)[:, None], np.arange(widest)
        self._rectangle = tensor_of(starts + np.minimum(nodes, counts[:, None] - 1), device)  # (rows, widest): index of the node
        self._back = tensor_of(spread(np.arange(len(counts)) * widest, counts), device)
        distinct = {id(tree): tree for tree in trees}
        number = {key: at for at, key in enumerate(distinct)}
        unseen = np.stack([_unseen(tree, widest) for tree in distinct.values()])
        which = np.fromiter((number[id(tree)] for tree in trees), np.int64, len(trees))
        self._hidden = tensor_of(unseen, device)[tensor_of(which, device)]  # (rows, widest, widest)

    def mix(self, layer: int, *, reads_only: bool) -> torch.Tensor:
        """Attend to ancestors, then to the row's context, then to the prefix. Queries beyond the nodes are fillers."""
        q = self._asked()
        out = torch.zeros_like(q)
        lse = q.new_empty((q.shape[1], len(q)), dtype=torch.float32)
        nodes = slice(0, self._nodes)
        out[nodes], lse[:, nodes] = self._among_nodes(layer, q)
        k, v = self._context(layer)
        mixed, other = self._varlen(q[nodes], k, v, self._cut_q, self._cut_k, causal=False)
        self._merge(out[nodes], lse[:, nodes], mixed, other, None)
        for behind in self._behind:
            self._merge(out[behind.asking], lse[:, behind.asking], *behind.found(q, layer, self._varlen), None)
        return out.flatten(1)

    def _among_nodes(self, layer: int, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend from each node to its ancestors and itself."""
        k, v = self.room(layer, self._nodes)
        mixed, lse = attend(q[self._rectangle], k[self._rectangle], v[self._rectangle], self._hidden)
        return mixed.flatten(0, 1)[self._back], lse.transpose(0, 1).flatten(1)[:, self._back]

    def _context(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values of all rows, (sum of their tokens, kv_heads, head_dim) each."""
        begin, gathered = self._gathered or (0, None)
        if gathered is None or not begin <= layer < begin + len(gathered):
            self._gathered = gathered = None  # free the old before allocating the new
            begin, end = layer, layer + self._layers
            is_whole = end - begin >= self._w.shape.layers
            gathered = torch.cat([context if is_whole else context[begin:end] for context in self._contexts], 3)
            self._gathered = begin, gathered
        k, v = gathered[layer - begin].transpose(1, 2)
        return k, v


def _unseen(tree: Tree, widest: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    """Return (widest, widest): 0 where a node sees another, itself and its ancestors; fillers see the first."""
    out = np.full((widest, widest), -np.inf, np.float32)
    out[: len(tree.parents), : len(tree.parents)] = tree.unseen
    out[len(tree.parents) :, 0] = 0
    return out
