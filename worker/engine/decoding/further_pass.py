"""A further pass: the last token of each begun answer, and a tree of possible continuations."""

from collections.abc import Sequence

import numpy as np

from worker.engine.decoding.partial_answers import Continuation
from worker.engine.forward.tree import Tree


class FurtherPass:
    """All its tokens and their positions. `behind`: each row's prefix, and its own keys and values."""

    def __init__(self, rows: Sequence[Continuation], trees: Sequence[Tree]) -> None:
        counts = [len(tree.parents) for tree in trees]
        fed = [(row.begun.tokens[-1], *tree.tokens) for row, tree in zip(rows, trees, strict=True)]
        known = [row.row.prefix.n + row.n_tokens for row in rows]
        self.ids = np.fromiter((token for tokens in fed for token in tokens), np.int64, sum(counts))
        self.positions = np.repeat(known, counts) + np.concatenate([tree.depths for tree in trees])
        self.behind = [row.row.prefix for row in rows], [row.kv for row in rows]
