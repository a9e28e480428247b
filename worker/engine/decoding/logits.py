"""Read the logits: the token, how close the call was, and the probabilities where severity and category are decided."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from guardfleet.domain.verdict import CATEGORY_CHOICES
from worker.engine.answer import LABELS
from worker.engine.device import to_host
from worker.engine.forward.geometry import Ints

# Gap between the two best logits below which another batch shape could swap them: one step of the format at |x| in 32-64.
CLOSE = {torch.bfloat16: 0.25, torch.float16: 0.03, torch.float32: 1e-4}


class Reading(Protocol):
    """What is read from logits. `columns`: where each category's probability is; of a detector none."""

    columns: list[int | None]

    def table(self, logits: torch.Tensor) -> torch.Tensor:
        """Return, for logits (n, vocabulary), a row of fp32 each: token, whether finite, lead, then anything; may destroy them."""


class LabelTokens:
    """The positions in an answer where severity and category are decided, and the first token of each choice there.

    The category is read behind `Unsafe`, whatever the answer is, and among those with a name: behind `Safe` it would be `None`
    until the severity changes, and say nothing about a text that is unsafe with some probability.
    """

    def __init__(self, encode: Callable[[str], Sequence[int]], device: torch.device) -> None:
        self.label_prefix, labels = forks([f"Safety: {label}\nCategories:" for label in LABELS], encode)
        if len(set(labels)) < len(labels):
            raise ValueError("two severity labels begin with the same token")
        self.unsafe_prefix, first = forks([f"Safety: Unsafe\nCategories: {name}" for name in CATEGORY_CHOICES], encode)
        none, *named = first
        distinct = list(dict.fromkeys(token for token in named if token != none))
        self.severity_tokens, self.category_tokens = labels, distinct
        self._labels = torch.tensor(labels, device=device)
        self._categories = torch.tensor(distinct, device=device)
        # Categories that begin with the same token (not so in Qwen's vocabulary) share its probability, which then tells nothing.
        self.columns = [distinct.index(token) if first.count(token) == 1 else None for token in named]

    @property
    def width(self) -> int:
        """How many probabilities a read position has."""
        return len(self._labels) + len(self._categories)

    def labels(self, logits: torch.Tensor) -> torch.Tensor:
        """Return (n, 3): softmax over the severity labels, in fp32."""
        return logits[:, self._labels].float().softmax(-1)

    def categories(self, logits: torch.Tensor) -> torch.Tensor:
        """Return (n, distinct first tokens): softmax over the categories, in fp32."""
        return logits[:, self._categories].float().softmax(-1)

    def table(self, logits: torch.Tensor) -> torch.Tensor:
        """Return everything read from logits (n, vocabulary), a row of fp32 for each; destroys the logits."""
        labels, categories = self.labels(logits), self.categories(logits)
        return torch.cat([chosen_of(logits), labels, categories], 1)


def chosen_of(logits: torch.Tensor) -> torch.Tensor:
    """Return (n, 3) of logits (n, vocabulary): the winning token, whether its logit is finite, its lead; destroys the logits."""
    best, chosen = logits.max(-1)
    second = logits.scatter_(-1, chosen[:, None], float("-inf")).amax(-1)
    columns = (chosen.float(), torch.isfinite(best).float(), best.float() - second.float())  # fp32 is exact below 2**24
    return torch.stack(columns, 1)


class Reads:
    """The read positions of one pass: the winning token, whether its logit is finite, and its lead over the next.

    They are available after `wait`; until then the device may still be computing them.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._tables: list[Callable[[], torch.Tensor]] = []
        self._table: npt.NDArray[np.float32] = np.empty((0, 0), np.float32)
        self.tokens: Ints = np.empty(0, np.int64)

    def add(self, logits: torch.Tensor) -> None:
        """Read (n, vocabulary) more positions; destroys the logits."""
        self.take(self._reading.table(logits))

    def take(self, table: torch.Tensor) -> None:
        """Add positions that were read already (`Reading.table`)."""
        self._tables.append(to_host(table))

    def wait(self) -> None:
        """Wait until all added positions are on the host."""
        self._table = np.concatenate([table().numpy() for table in self._tables])
        self.tokens = self._table[:, 0].astype(np.int64)
        self._tables.clear()

    def are_finite(self, at: Ints) -> npt.NDArray[np.bool_]:
        """Return whether the winner at read positions, of any shape, is finite."""
        found: npt.NDArray[np.bool_] = self._table[at, 1] > 0
        return found

    def gaps(self, at: Ints) -> npt.NDArray[np.float32]:
        """Return the winner's lead over the next at read positions."""
        found: npt.NDArray[np.float32] = self._table[at, 2]
        return found

    def beyond(self, at: Ints) -> npt.NDArray[np.float32]:
        """Return whatever else was read at positions: (positions, columns)."""
        found: npt.NDArray[np.float32] = self._table[at, 3:]
        return found

    def labels(self, at: int) -> tuple[float, float, float]:
        """Return P(safe), P(controversial), P(unsafe) at a read position."""
        ((safe, controversial, unsafe),) = self.all_labels(np.array([at]))
        return safe, controversial, unsafe

    def all_labels(self, at: Ints) -> list[list[float]]:
        """Return the same for several positions."""
        found: list[list[float]] = self._table[at, 3 : 3 + len(LABELS)].tolist()
        return found

    def categories(self, at: int) -> tuple[float | None, ...]:
        """Return P of each of `CATEGORY_CHOICES`, given that a named one is chosen here; None where no single token tells."""
        (found,) = self.all_categories(np.array([at]))
        return found

    def all_categories(self, at: Ints) -> list[tuple[float | None, ...]]:
        """Return the same for several positions."""
        columns = self._reading.columns
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
    """Return the ids that all answers begin with, and the next id of each."""
    ids = [tuple(encode(answer)) for answer in answers]
    shared = next(i for i, column in enumerate(zip(*ids, strict=False)) if len(set(column)) > 1)
    return ids[0][:shared], [row[shared] for row in ids]


def encoder_of(tokenizer: Any) -> Callable[[str], list[int]]:
    """Return a function that turns an answer, or a part of one, into tokens."""
    return lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"])


def end_ids(network: Any, tokenizer: Any) -> list[int]:
    """Return the ids that end an answer; the tokenizer's own if the model names none."""
    configured = network.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return [end for end in several if end is not None] or [tokenizer.eos_token_id]
