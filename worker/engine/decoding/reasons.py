"""The model's own words on why: written greedily behind its decision, a token per pass, within a limit.

The reason never changes the decision. What opens it is fed and not chosen, so that the model writes a reason and nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from worker.engine.decoding.decision_pass import PolicyRow
from worker.engine.forward.geometry import Ints, Prefix
from worker.engine.forward.tree import Tree
from worker.engine.interfaces import Answer

MOST_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Writing:
    """A row whose reason is begun. `kv` holds the keys and values of its own tokens so far, without `feed`, which comes next."""

    row: PolicyRow
    prefix: Prefix
    decision: Answer
    feed: tuple[int, ...]
    written: tuple[int, ...]
    kv: torch.Tensor

    @property
    def n_tokens(self) -> int:
        """How many tokens' keys and values it holds: memory limits a further pass."""
        return int(self.kv.shape[3])


class WritingPass:
    """All tokens to feed and their positions; `reads`: the last one of each row."""

    def __init__(self, rows: Sequence[Writing]) -> None:
        counts = [len(row.feed) for row in rows]
        self.trees = [Tree.chain(row.feed[1:]) for row in rows]
        self.ids: Ints = np.array([token for row in rows for token in row.feed], np.int64)
        known = [row.prefix.n + row.n_tokens for row in rows]
        self.positions: Ints = np.concatenate([at + np.arange(n) for at, n in zip(known, counts, strict=True)])
        ends = np.cumsum(counts)
        self.reads: Ints = ends - 1
        self.spans = [np.arange(end - n, end) for end, n in zip(ends, counts, strict=True)]
        self.behind = [row.prefix for row in rows], [row.kv for row in rows]


class Reasons:
    """When a reason is complete, and what it says. `closes`: what ends it."""

    def __init__(self, tokenizer: Any, ends: frozenset[int], closes: str, most: int = MOST_TOKENS) -> None:
        self._decode: Callable[[Sequence[int]], str] = tokenizer.decode
        self._ends = ends | frozenset(tokenizer.added_tokens_decoder)
        self._closes, self._most = closes, most

    def is_complete(self, written: Sequence[int]) -> bool:
        """Return whether it ended, was closed, or has the maximum length."""
        return written[-1] in self._ends or len(written) >= self._most or self._closes in self._decode(written)

    def answer(self, row: Writing, written: Sequence[int]) -> Answer:
        """Return the decision with its reason: None if the model wrote nothing, with an ellipsis if it was cut off."""
        kept = written[:-1] if written[-1] in self._ends else written
        said, closed, _ = self._decode(kept).partition(self._closes)
        is_cut = not closed and len(kept) == len(written)
        reason = said.strip() + ("\u2026" if is_cut else "")
        passes, tokens = row.decision.passes + len(written), row.decision.output_tokens + len(written)
        return replace(row.decision, reason=reason or None, passes=passes, output_tokens=tokens)
