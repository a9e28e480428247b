"""Compare the packed pass with transformers' own at each load, on this model, device and precision.

Both say what the head reads of rows of random tokens, of many lengths, and what it makes of that. The packed pass may be off
from fp32's by at most `SLACK` times what transformers itself is off in this precision, or by a small fraction of how much the
rows differ among themselves (outputs: of their size, since those of random rows may be nearly the same): an error far smaller
than what tells texts apart is found, however small the numbers are.
"""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from guardfleet.errors import ConfigurationError
from worker.engine.encoders.families import HEADS
from worker.engine.encoders.packed import PackedPass
from worker.engine.interfaces import SelfTestError

LENGTHS = (1, 2, 3, 9, 17, 33, 64, 130, 300, 511, 900)  # tokens between the special ones
EACH = 2  # rows of each length
AT_MOST_FLOP = {"cpu": 6e11}  # what transformers' passes may cost; a GPU does all of them in a second
SLACK = 3.0  # of the precision's own spread, as for the guard (`verification.self_test`)
FLOOR = 2.0**-12  # of the rows' own spread: what sound passes in fp32 are off stays below a hundredth of it


class Seen(NamedTuple):
    """What the head reads of each row, (rows, hidden), and its outputs, (rows, labels); in fp32."""

    pooled: torch.Tensor
    logits: torch.Tensor


class Probes(NamedTuple):
    """Rows of ids, and what transformers sees of them in fp32."""

    rows: list[tuple[int, ...]]
    exact: Seen


def ask(network: Any, before: Sequence[int], behind: Sequence[int], size: int) -> Probes:
    """Ask transformers, in fp32, about random rows of at most `size` tokens between the special ones."""
    dice = random.Random(1)
    some = [number for number in range(int(network.config.vocab_size)) if number != network.config.pad_token_id]
    weights = sum(weight.numel() for weight in network.parameters()) - network.get_input_embeddings().weight.numel()
    room = AT_MOST_FLOP.get(network.device.type, float("inf")) / (2 * EACH * weights)
    rows: list[tuple[int, ...]] = []
    for n in sorted({min(n, size) for n in LENGTHS}):
        room -= n
        if room >= 0 or not rows:
            rows += [(*before, *dice.choices(some, k=n), *behind) for _ in range(EACH)]
    exact = read(network, rows)
    if not all(part.isfinite().all() for part in exact):
        raise ConfigurationError("the model's numbers are not finite: its weights or its config.json are damaged.")
    return Probes(rows, exact)


@torch.inference_mode()
def read(network: Any, rows: Sequence[tuple[int, ...]]) -> Seen:
    """Return what transformers' network sees of each row, each on its own."""
    seen: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []

    def note(_: Any, given: tuple[torch.Tensor, ...]) -> None:
        seen.append(given[0][:, 0] if given[0].dim() > 2 else given[0])  # noqa: PLR2004 - of all tokens, or pooled

    hook = network.get_submodule(HEADS[network.config.model_type]).register_forward_pre_hook(note)
    try:
        for row in rows:
            ids = torch.tensor([row], device=network.device)
            logits.append(network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits)
    finally:
        hook.remove()
    return Seen(torch.cat(seen).float(), torch.cat(logits).float())


def hold(packed: PackedPass, probes: Probes, near: Seen) -> None:
    """Compare; `near`: transformers' own in the pass's precision. Raises SelfTestError with how far it is off."""
    order = random.Random(2).sample(range(len(probes.rows)), len(probes.rows))
    rows = [probes.rows[i] for i in order]
    exact, near = (Seen(seen.pooled[order], seen.logits[order]) for seen in (probes.exact, near))
    spread = float(_size(exact.pooled - exact.pooled.mean(0)).mean())
    _near("the packed pass is", packed.pooled(rows).float(), exact.pooled, near.pooled, spread)
    _near("the packed pass's head is", packed.logits(rows), exact.logits, near.logits, float(_size(exact.logits).mean()))


def _near(what: str, found: torch.Tensor, exact: torch.Tensor, near: torch.Tensor, scale: float) -> None:
    allowed = SLACK * max(FLOOR * scale, float(_size(near - exact).max()))
    off = float(_size(found - exact).max())
    if not off <= allowed:
        raise SelfTestError(f"{what} off by {off:.3g} from the model's own; this precision allows {allowed:.3g}")


def _size(values: torch.Tensor) -> torch.Tensor:
    """Return each row's root of mean squares."""
    return values.square().mean(-1).sqrt()
