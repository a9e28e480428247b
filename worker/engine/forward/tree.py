"""A tree of drafted tokens, as attention sees it: which node follows which."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Tree:
    """Drafted tokens below a root, node 0, which is the token fed last; node i is `tokens[i - 1]`, its parent `parents[i]`."""

    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = (-1,)

    @classmethod
    def chain(cls, tokens: Sequence[int]) -> "Tree":
        """Build the tree of one answer, without branches."""
        return cls(tuple(tokens), tuple(range(-1, len(tokens))))

    @functools.cached_property
    def _children(self) -> dict[tuple[int, int], int]:
        return {(self.parents[i], self.tokens[i - 1]): i for i in range(1, len(self.parents))}

    @functools.cached_property
    def depths(self) -> list[int]:
        """Each node's distance from the root."""
        out = [0]
        for parent in self.parents[1:]:
            out.append(out[parent] + 1)
        return out

    @functools.cached_property
    def unseen(self) -> npt.NDArray[np.float32]:
        """(nodes, nodes): 0 where the first sees the second, which is itself or an ancestor, else -inf."""
        out = np.full((len(self.parents), len(self.parents)), -np.inf, np.float32)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                out[node] = out[parent]
            out[node, node] = 0
        return out

    def child(self, node: int, token: int) -> int | None:
        """Return the node that drafts this token after a node."""
        return self._children.get((node, token))
