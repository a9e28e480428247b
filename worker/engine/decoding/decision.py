"""The decision of a family that gives labels: which tokens decide, what their logits say, and the answer that this makes."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from guardfleet.errors import ConfigurationError
from worker.engine.decoding.logits import Reads, chosen_of
from worker.engine.families.family import Grammar
from worker.engine.interfaces import Answer, Unjudgeable


class DecisionTokens:
    """The first token of each word of a grammar. Raises ConfigurationError if two words begin with the same token."""

    def __init__(self, grammar: Grammar, encode: Callable[[str], Sequence[int]], device: torch.device) -> None:
        encoded = [tuple(encode(word)) for word in grammar.words]
        self.tokens = [ids[0] for ids in encoded]
        if len(set(self.tokens)) < len(self.tokens):
            raise ConfigurationError("two labels of the model begin with the same token, so its decision cannot be read.")
        self.columns: list[int | None] = []
        self._column_of = {token: at for at, token in enumerate(self.tokens)}
        self._on_device = torch.tensor(self.tokens, device=device)
        # A reason is continued behind what an answer has before it, so that the model writes nothing else.
        self.behind = [tuple(encode(word + grammar.opens))[1:] for word in grammar.words]
        if any((token, *rest)[: len(ids)] != ids for token, rest, ids in zip(self.tokens, self.behind, encoded, strict=True)):
            raise ConfigurationError("the model's tokenizer joins its labels with what follows, so its decision cannot be read.")

    def table(self, logits: torch.Tensor) -> torch.Tensor:
        """As `Reading.table`: also the logits of the deciding tokens."""
        deciding = logits[:, self._on_device].float()
        return torch.cat([chosen_of(logits), deciding], 1)

    def column(self, token: int) -> int | None:
        """Return the index of the label that a token says; None if it says none."""
        return self._column_of.get(token)


def decided(
    reads: Reads, at: int, allowed: Sequence[bool], tokens: DecisionTokens, *, close: float, said: Callable[[int], str]
) -> tuple[Answer, int | None]:
    """Return the answer at a read position, and the label's index; None if there is none, and the answer is a failure.

    The model's likeliest token of its whole vocabulary must say an allowed label. The scores are the softmax over what is allowed.
    `said`: a token as text.
    """
    where = np.array([at])
    if not reads.are_finite(where)[0]:
        return Answer("", failure=Unjudgeable("engine_failed", "the model's numbers are not finite")), None
    token = int(reads.tokens[at])
    column = tokens.column(token)
    if column is None or not allowed[column]:
        return Answer(said(token), failure=Unjudgeable("unparsed", "the answer begins with none of the labels")), None
    scores = softmax(reads.beyond(where)[0], allowed)
    is_close = float(reads.gaps(where)[0]) < close
    return Answer(said(token), scores=scores, is_close=is_close, output_tokens=1), column


def softmax(logits: npt.NDArray[np.float32], allowed: Sequence[bool]) -> tuple[float, ...]:
    """Return the softmax over the allowed entries, 0 elsewhere."""
    shown = np.where(allowed, logits.astype(np.float64), -np.inf)
    weights = np.exp(shown - shown.max())
    return tuple((weights / weights.sum()).tolist())
