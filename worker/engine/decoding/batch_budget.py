"""How many tokens one pass takes: estimated from memory, then tried with the largest batch before the first text comes."""

from collections.abc import Sequence
from typing import Protocol

import torch

from guardfleet.errors import ConfigurationError
from worker.engine.forward.network import PackedNetwork
from worker.engine.interfaces import Answer, DeviceFullError, Pieces, Prepared, SelfTestError, Unjudgeable
from worker.engine.model.memory import LEAST_TOKENS, batch_tokens, kept_bytes
from worker.engine.prompting.prompt import Content
from worker.engine.prompting.windows import Coverage

CPU_TOKENS, CPU_BYTES = 8192, 2 << 30  # more tokens make a CPU no faster; keys and values of all batches launched stay below this
SHRINK = 0.75
ALIKE = 0.02  # that the odds of one text may differ by with its place in a batch
TYPICAL = "A sentence of middling length, as many texts are. " * 20


class Warmable(Protocol):
    """What is warmed up: a backend."""

    budget_tokens: int
    device: str
    ahead: int

    def prepare(self, contents: Sequence[Content], coverage: Coverage | None = None) -> Sequence[Prepared | Pieces | Unjudgeable]:
        """As `interfaces.Backend.prepare`."""

    def run(self, batch: Sequence[Prepared]) -> Sequence[object]:
        """Judge a batch."""


def first_guess(network: PackedNetwork, *, streams: int, ahead: int) -> int:
    """Tokens of a batch that the memory should hold, by the arithmetic of the plan that the model was loaded by."""
    shape = network.shape
    item: int = network.dtype.itemsize
    if network.device.type != "cuda":
        kept = kept_bytes(shape, item)
        return max(LEAST_TOKENS, min(CPU_TOKENS // streams, CPU_BYTES // kept // (1 + ahead)))
    torch.cuda.empty_cache()  # what the self test's reference took is free, and would not be counted so
    free, _ = torch.cuda.mem_get_info(network.device)
    return max(LEAST_TOKENS, batch_tokens(shape, item, free))


def _require_alike(answers: Sequence[object]) -> None:
    """Of a batch of one row many times: wherever it lies, it gets the same answer. Raises SelfTestError."""
    whole = [answer for answer in answers if isinstance(answer, Answer) and answer.probabilities and not answer.is_close]
    for answer in whole:
        p, q = (one.probabilities or () for one in (answer, whole[0]))
        if answer.raw != whole[0].raw or max(abs(a - b) for a, b in zip(p, q, strict=True)) > ALIKE:
            raise SelfTestError("the packed pass answers one text in several ways within a large batch")


def warm_up(backend: Warmable) -> None:
    """Run the largest batch, so that too little memory shows now; lowers the budget until it fits. Raises ConfigurationError."""
    (row,) = (row for row in backend.prepare([TYPICAL]) if not isinstance(row, Pieces | Unjudgeable))
    while True:
        try:
            for _ in range(1 + backend.ahead):  # each has room of its own
                _require_alike(backend.run([row] * max(1, backend.budget_tokens // row.n_tokens)))
        except DeviceFullError:
            backend.budget_tokens = int(SHRINK * backend.budget_tokens)
            if backend.budget_tokens < LEAST_TOKENS:
                raise ConfigurationError(
                    f"the model fits into the memory of {backend.device}, but no batch of {LEAST_TOKENS} tokens beside it:"
                    " take a smaller model or another device, or free its memory."
                ) from None
        else:
            return
