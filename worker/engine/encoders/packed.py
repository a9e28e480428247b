"""A pass over rows of ids in any order: packed, or transformers' own over rectangles, for what the packed one does not cover."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from worker.engine.device import tensor_of
from worker.engine.encoders.families import outline_of
from worker.engine.encoders.stack import PackedStack

Ids = tuple[int, ...]


class Pass(Protocol):
    """What a backend runs; safe to call from several threads."""

    padded: bool

    def logits(self, rows: Sequence[Ids]) -> torch.Tensor:
        """Return the head's outputs, (rows, labels) in fp32, in the order of the rows."""


class PackedPass:
    """The packed pass of a network that `families.why_not` accepts; it takes what it needs, and not the network itself."""

    padded = False

    def __init__(self, network: Any, device: torch.device) -> None:
        self._stack, self._device = PackedStack(outline_of(network), device=device), device

    def logits(self, rows: Sequence[Ids]) -> torch.Tensor:
        """As `Pass.logits`."""
        return self._stack.head(self.pooled(rows))

    def pooled(self, rows: Sequence[Ids]) -> torch.Tensor:
        """Return what the head reads of each row, (rows, hidden)."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        ids = np.concatenate([np.asarray(rows[i], np.int64) for i in order])
        found = self._stack.pooled(tensor_of(ids, self._device), [len(rows[i]) for i in order])
        back = np.argsort(np.asarray(order))
        return found[tensor_of(back, self._device)]


class PaddedPass:
    """Correct on every device that torch knows."""

    padded = True

    def __init__(self, network: Any, device: torch.device, pad: int) -> None:
        self._network, self._device, self._pad = network, device, pad

    @torch.inference_mode()
    def logits(self, rows: Sequence[Ids]) -> torch.Tensor:
        """As `Pass.logits`."""
        longest = max(len(row) for row in rows)
        input_ids = torch.full((len(rows), longest), self._pad)  # (rows, longest), padded on the right
        attention_mask = torch.zeros_like(input_ids)
        for i, row in enumerate(rows):
            input_ids[i, : len(row)] = torch.tensor(row)
            attention_mask[i, : len(row)] = 1
        out = self._network(input_ids=input_ids.to(self._device), attention_mask=attention_mask.to(self._device))
        found: torch.Tensor = out.logits.float()
        return found
