"""What is read off the logits: the token, how close the call was, and the odds at the places that decide severity and category."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from guardfleet.domain.verdict import CATEGORY_CHOICES
from worker.engine.answer import LABELS
from worker.engine.device import to_host
from worker.engine.forward.geometry import Ints

# Gap between the two best logits below which another batch shape could flip them: one step of the format at |x| in 32-64.
CLOSE = {torch.bfloat16: 0.25, torch.float16: 0.03, torch.float32: 1e-4}


class Odds:
    """Where in an answer severity and category are decided, and the first token of each choice there.

    The category is read behind `Unsafe`, whatever the answer is, and among those that have a name: behind `Safe` it would be `None`
    up to the flip, and say nothing of what a text is that is unsafe with some probability.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]], device: torch.device) -> None:
        self.label_prefix, labels = forks([f"Safety: {label}\nCategories:" for label in LABELS], encode)
        if len(set(labels)) < len(labels):
            raise ValueError("two severity labels begin with the same token")
        self.unsafe_prefix, first = forks([f"Safety: Unsafe\nCategories: {name}" for name in CATEGORY_CHOICES], encode)
        none, *named = first
        distinct = list(dict.fromkeys(token for token in named if token != none))
        self.label_tokens, self.category_tokens = labels, distinct
        self._labels = torch.tensor(labels, device=device)
        self._categories = torch.tensor(distinct, device=device)
        # Two categories that begin with one token (not so in Qwen's vocabulary) share its odds, which then say nothing of either.
        self.columns = [distinct.index(token) if first.count(token) == 1 else None for token in named]

    @property
    def width(self) -> int:
        """Odds of a read position."""
        return len(self._labels) + len(self._categories)

    def labels(self, logits: torch.Tensor) -> torch.Tensor:
        """(n, 3): softmax over the labels, in fp32."""
        return logits[:, self._labels].float().softmax(-1)

    def categories(self, logits: torch.Tensor) -> torch.Tensor:
        """(n, distinct first tokens): softmax over the categories, in fp32."""
        return logits[:, self._categories].float().softmax(-1)

    def table(self, logits: torch.Tensor) -> torch.Tensor:
        """All that is read off logits (n, vocabulary), which are used up: a row of fp32 for each."""
        best, chosen = logits.max(-1)
        labels, categories = self.labels(logits), self.categories(logits)
        second = logits.scatter_(-1, chosen[:, None], float("-inf")).amax(-1)
        columns = (chosen.float(), torch.isfinite(best).float(), best.float() - second.float())  # fp32 is exact below 2**24
        return torch.cat([torch.stack(columns, 1), labels, categories], 1)


class Reads:
    """The read positions of one pass: the winning token, whether it is a number at all, and its lead over the next.

    They are there after `wait`; until then the device may still be at work on them.
    """

    def __init__(self, odds: Odds) -> None:
        self._odds = odds
        self._tables: list[Callable[[], torch.Tensor]] = []
        self._table: npt.NDArray[np.float32] = np.empty((0, 0), np.float32)
        self.tokens: Ints = np.empty(0, np.int64)

    def add(self, logits: torch.Tensor) -> None:
        """Read (n, vocabulary) more positions; the logits are used up."""
        self.take(self._odds.table(logits))

    def take(self, table: torch.Tensor) -> None:
        """Positions that were read already (`Odds.table`)."""
        self._tables.append(to_host(table))

    def wait(self) -> None:
        """Until all positions that were added are on the host."""
        self._table = np.concatenate([table().numpy() for table in self._tables])
        self.tokens = self._table[:, 0].astype(np.int64)
        self._tables.clear()

    def are_finite(self, at: Ints) -> npt.NDArray[np.bool_]:
        """Whether what won at read positions, of any shape, is a number."""
        found: npt.NDArray[np.bool_] = self._table[at, 1] > 0
        return found

    def gaps(self, at: Ints) -> npt.NDArray[np.float32]:
        """The lead of what won at read positions over the next."""
        found: npt.NDArray[np.float32] = self._table[at, 2]
        return found

    def labels(self, at: int) -> tuple[float, float, float]:
        """P(safe), P(controversial), P(unsafe) at a read position."""
        ((safe, controversial, unsafe),) = self.all_labels(np.array([at]))
        return safe, controversial, unsafe

    def all_labels(self, at: Ints) -> list[list[float]]:
        """The same at several."""
        found: list[list[float]] = self._table[at, 3 : 3 + len(LABELS)].tolist()
        return found

    def categories(self, at: int) -> tuple[float | None, ...]:
        """P of each of `CATEGORY_CHOICES`, if one with a name were chosen at a read position; None where no single token tells."""
        (found,) = self.all_categories(np.array([at]))
        return found

    def all_categories(self, at: Ints) -> list[tuple[float | None, ...]]:
        """The same at several."""
        columns = self._odds.columns
        known = [3 + len(LABELS) + column for column in columns if column is not None]
        found = self._table[at][:, known].tolist()
        if len(known) == len(columns):
            return [(0.0, *row) for row in found]
        return [tuple(_with_gaps(row, columns)) for row in found]


def _with_gaps(row: Sequence[float], columns: Sequence[int | None]) -> Iterator[float | None]:
    known = iter(row)
    yield 0.0
    yield from (None if column is None else next(known) for column in columns)


def forks(answers: Sequence[str], encode: Callable[[str], Sequence[int]]) -> tuple[tuple[int, ...], list[int]]:
    """The ids that all answers begin with, and the id that each goes on with."""
    ids = [tuple(encode(answer)) for answer in answers]
    shared = next(i for i, column in enumerate(zip(*ids, strict=False)) if len(set(column)) > 1)
    return ids[0][:shared], [row[shared] for row in ids]


def encoder_of(tokenizer: Any) -> Callable[[str], list[int]]:
    """What turns an answer, or a part of one, into tokens."""
    return lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"])


def end_ids(network: Any, tokenizer: Any) -> list[int]:
    """The ids that end an answer, the tokenizer's own where the model names none."""
    configured = network.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return [end for end in several if end is not None] or [tokenizer.eos_token_id]
