"""How many tokens a pass takes: estimated from memory, then tried with the largest batch before the first text comes."""

from collections.abc import Sequence
from typing import Protocol

import torch

from guardfleet.errors import ConfigurationError
from worker.engine.forward.network import PackedNetwork
from worker.engine.interfaces import Answer, DeviceFullError, Pieces, Prepared, SelfTestError, Unjudgeable
from worker.engine.model.memory import LEAST_TOKENS, batch_tokens, kept_bytes, logits_bytes, passing_bytes
from worker.engine.model.shape import Shape
from worker.engine.prompting.prompt import Content
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.prompting.windows import Coverage

CPU_TOKENS, CPU_BYTES = 8192, 2 << 30  # more tokens make a CPU no faster; keys and values of all launched batches stay below this
SHRINK = 0.75
ALIKE = 0.02  # allowed difference between one text's probabilities at different positions in a batch
TYPICAL = "A sentence of middling length, as many texts are. " * 20


class Warmable(Protocol):
    """A backend to warm up."""

    budget_tokens: int
    device: str
    ahead: int

    def prepare(
        self, contents: Sequence[Content], coverage: Coverage | None = None, policy: PromptPolicy | None = None
    ) -> Sequence[Prepared | Pieces | Unjudgeable]:
        """As `interfaces.Backend.prepare`."""

    def run(self, batch: Sequence[Prepared]) -> Sequence[object]:
        """Judge a batch."""


def first_guess(network: PackedNetwork, *, streams: int, ahead: int, spared: int = 0) -> int:
    """Return the tokens of a batch that should fit into memory, by the same arithmetic as the model's memory plan.

    `spared`: bytes of the device that are kept for something else.
    """
    shape = network.shape
    item: int = network.dtype.itemsize
    if network.device.type != "cuda":
        kept = kept_bytes(shape, item)
        return max(LEAST_TOKENS, min(CPU_TOKENS // streams, CPU_BYTES // kept // (1 + ahead)))
    torch.cuda.empty_cache()  # the memory of the self test's reference is free, but would not be counted so
    free, _ = torch.cuda.mem_get_info(network.device)
    return max(LEAST_TOKENS, batch_tokens(shape, item, free - spared))


def cpu_bytes(shape: Shape, item: int) -> int:
    """Return about what batches take of a CPU's memory beside the weights: keys and values, one layer's activations, logits."""
    kept = kept_bytes(shape, item)
    tokens = min(CPU_TOKENS, CPU_BYTES // kept)
    return min(CPU_BYTES, 2 * CPU_TOKENS * kept) + tokens * passing_bytes(shape, item) + logits_bytes(shape, item)


def _require_alike(answers: Sequence[object]) -> None:
    """Check a batch of one row many times: it must get the same answer at every position. Raises SelfTestError."""
    whole = [answer for answer in answers if isinstance(answer, Answer) and answer.probabilities and not answer.is_close]
    for answer in whole:
        p, q = (one.probabilities or () for one in (answer, whole[0]))
        if answer.raw != whole[0].raw or max(abs(a - b) for a, b in zip(p, q, strict=True)) > ALIKE:
            raise SelfTestError("the packed pass gives one text several answers within a large batch")


def warm_up(backend: Warmable, policy: PromptPolicy | None = None) -> None:
    """Run the largest batch, so that too little memory shows now; lower the budget until it fits. Raises ConfigurationError."""
    (row,) = (row for row in backend.prepare([TYPICAL], None, policy) if not isinstance(row, Pieces | Unjudgeable))
    while True:
        try:
            for _ in range(1 + backend.ahead):  # each launched batch has a workspace of its own
                _require_alike(backend.run([row] * max(1, backend.budget_tokens // row.n_tokens)))
        except DeviceFullError:
            backend.budget_tokens = int(SHRINK * backend.budget_tokens)
            if backend.budget_tokens < LEAST_TOKENS:
                raise ConfigurationError(
                    f"the model fits into the memory of {backend.device}, but leaves no room for a batch of {LEAST_TOKENS} tokens:"
                    " use a smaller model or another device, or free its memory."
                ) from None
        else:
            return
