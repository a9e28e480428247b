"""The progress of a row: a prompt that waits for its first pass, a begun answer, a complete one."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from worker.engine.decoding.logits import CLOSE, LabelTokens, Reads, end_ids
from worker.engine.decoding.modes import Mode
from worker.engine.forward.geometry import Prefix
from worker.engine.interfaces import Answer, Unjudgeable
from worker.engine.rendering import MAX_NEW_TOKENS


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A tokenised prompt: the ids after its mode's prefix, and its share of the batch, including its draft."""

    ids: npt.NDArray[np.int32]
    mode: Mode
    prefix: Prefix
    n_tokens: int
    n_prompt: int


@dataclass(slots=True)
class Begun:
    """A begun answer: its tokens, the passes it took, and what was read at its positions.

    `categories` are read in the first pass, as if the answer were `Unsafe`.
    """

    tokens: list[int] = field(default_factory=list)
    passes: int = 1
    labels: tuple[float, float, float] | None = None
    categories: tuple[float | None, ...] | None = None
    gap: float = float("inf")
    is_finite: bool = True

    def note(self, reads: Reads, index: int, label_tokens: LabelTokens) -> None:
        """Record what a read position says about the next token."""
        at = np.array([index])
        self.gap = min(self.gap, float(reads.gaps(at)[0]))
        self.is_finite = self.is_finite and bool(reads.are_finite(at)[0])
        if len(self.tokens) == len(label_tokens.label_prefix) and tuple(self.tokens) == label_tokens.label_prefix:
            self.labels = reads.labels(index)

    def goes_on(self) -> "Begun":
        """Return a copy for another pass; the original stays unchanged, since a failed batch is run again."""
        return replace(self, tokens=[*self.tokens], passes=self.passes + 1)


@dataclass(frozen=True, slots=True)
class Continuation:
    """A row whose answer left the draft. `kv` holds the keys and values of all its tokens so far but the last."""

    row: PromptRow
    begun: Begun
    kv: torch.Tensor

    @property
    def n_tokens(self) -> int:
        """How many tokens' keys and values it holds: memory limits a further pass."""
        return int(self.kv.shape[3])


class Ending:
    """When an answer of this model is complete, and what it says. `close`: the lead below which a call is close."""

    def __init__(self, network: Any, tokenizer: Any, *, is_quantized: bool = False) -> None:
        self.ids = frozenset(end_ids(network, tokenizer))
        self._tokenizer = tokenizer
        self._controls = frozenset(tokenizer.added_tokens_decoder)
        self._n_known = len(tokenizer)
        self.close = CLOSE[torch.bfloat16 if is_quantized else network.dtype]  # swaps caused by eight bits are as large

    def is_reached(self, begun: Begun) -> bool:
        """Return whether the answer ended, or has the maximum length."""
        return bool(begun.tokens) and (begun.tokens[-1] in self.ids or len(begun.tokens) == MAX_NEW_TOKENS)

    def answer(self, begun: Begun, n_prompt: int, *, responds: bool) -> Answer | None:
        """Return the answer to a prompt of `n_prompt` tokens; None if it is incomplete."""
        if not begun.is_finite:
            return Answer("", failure=Unjudgeable("engine_failed", "the model's numbers are not finite"), responds=responds)
        if not self.is_reached(begun):
            return None
        tokens = begun.tokens[:-1] if begun.tokens[-1] in self.ids else begun.tokens
        return Answer(
            self._tokenizer.decode(tokens),
            begun.labels,
            n_prompt,
            len(tokens),
            categories=None if begun.labels is None else begun.categories,
            passes=begun.passes,
            is_close=begun.gap < self.close,
            responds=responds,
            flaw=self._flaw(begun, tokens),
        )

    def _flaw(self, begun: Begun, tokens: Sequence[int]) -> str | None:
        """Return what decoding alone could hide and so turn into valid grammar."""
        if begun.tokens[-1] not in self.ids:
            return f"it did not end within {MAX_NEW_TOKENS} tokens"
        if any(token in self._controls or token >= self._n_known for token in tokens):
            return "it holds control tokens"
        return None
