"""How far a row has come: a prompt that waits for its first pass, an answer that has been begun, one that is complete."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from worker.engine.decoding.logits import CLOSE, Odds, Reads, end_ids
from worker.engine.decoding.modes import Mode
from worker.engine.forward.geometry import Prefix
from worker.engine.interfaces import Answer, Unjudgeable
from worker.engine.rendering import MAX_NEW_TOKENS


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A tokenised prompt: the ids after its mode's prefix, and how much of the batch it takes, its draft included."""

    ids: npt.NDArray[np.int32]
    mode: Mode
    prefix: Prefix
    n_tokens: int
    n_prompt: int


@dataclass(slots=True)
class Begun:
    """An answer as far as it has been read: its tokens, in so many passes, and what the positions that were read said.

    `categories` are read in the first pass, if the answer were `Unsafe`.
    """

    tokens: list[int] = field(default_factory=list)
    passes: int = 1
    labels: tuple[float, float, float] | None = None
    categories: tuple[float | None, ...] | None = None
    gap: float = float("inf")
    is_finite: bool = True

    def note(self, reads: Reads, index: int, odds: Odds) -> None:
        """Take down what a read position says of the next token."""
        at = np.array([index])
        self.gap = min(self.gap, float(reads.gaps(at)[0]))
        self.is_finite = self.is_finite and bool(reads.are_finite(at)[0])
        if len(self.tokens) == len(odds.label_prefix) and tuple(self.tokens) == odds.label_prefix:
            self.labels = reads.labels(index)

    def goes_on(self) -> "Begun":
        """The same in another pass; this one stays as it is, for a batch that fails is given again."""
        return replace(self, tokens=[*self.tokens], passes=self.passes + 1)


@dataclass(frozen=True, slots=True)
class Continuation:
    """A row whose answer left the draft. `kv` holds the keys and values of all but the last of the tokens it has begun with."""

    row: PromptRow
    begun: Begun
    kv: torch.Tensor

    @property
    def n_tokens(self) -> int:
        """Tokens whose keys and values it keeps: memory is what bounds a second pass."""
        return int(self.kv.shape[3])


class Ending:
    """When an answer of this model is complete, and what it then says. `close`: the lead below which a call is a close one."""

    def __init__(self, network: Any, tokenizer: Any, *, is_quantized: bool = False) -> None:
        self.ids = frozenset(end_ids(network, tokenizer))
        self._tokenizer = tokenizer
        self._controls = frozenset(tokenizer.added_tokens_decoder)
        self._n_known = len(tokenizer)
        self.close = CLOSE[torch.bfloat16 if is_quantized else network.dtype]  # a step of eight bits that turns moves as much

    def is_reached(self, begun: Begun) -> bool:
        """Whether it ended, or is as long as answers may be."""
        return bool(begun.tokens) and (begun.tokens[-1] in self.ids or len(begun.tokens) == MAX_NEW_TOKENS)

    def answer(self, begun: Begun, n_prompt: int, *, responds: bool) -> Answer | None:
        """The answer to a prompt of so many tokens in a mode; None if it is not complete."""
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
        """What decoding alone could hide, and so turn into grammar."""
        if begun.tokens[-1] not in self.ids:
            return f"it did not end within {MAX_NEW_TOKENS} tokens"
        if any(token in self._controls or token >= self._n_known for token in tokens):
            return "it holds control tokens"
        return None
