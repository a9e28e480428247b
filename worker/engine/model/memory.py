"""Whether a model fits on a device, and how large its batches can be: computed from sizes before any weight is read."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from guardfleet.errors import NoRoomError
from worker.engine.model.host_memory import available_bytes
from worker.engine.model.quantize import FP8_CAPABILITY
from worker.engine.model.shape import Shape, shape_of

GPU_TOKENS = 65_536  # larger batches only make requests wait
LEAST_TOKENS = 512
WORKSPACES = 2  # keys and values of two batches: one runs, the next is launched
POOLED = 1  # budgets of keys and values of rows that wait for a further pass (`scheduler.Waiting._pool_is_due`)
RESERVED = 1 << 29  # bytes: the driver's context, cuBLAS's workspaces, kernels when they are first used
HEAD_ROWS = 1024  # rows whose logits exist at once (`PackedNetwork.head_rows`)
SHARE = 0.85  # of what is left; the rest is for gaps between blocks of unequal sizes


class Sizes(NamedTuple):
    """A network's shape, and whether its head is its embedding."""

    shape: Shape
    is_tied: bool


PUBLISHED = {  # Qwen3Guard-Gen
    "0.6B": Sizes(Shape(28, 16, 8, 128, 1024, 3072, 151_936), is_tied=True),
    "4B": Sizes(Shape(36, 32, 8, 128, 2560, 9728, 151_936), is_tied=True),
    "8B": Sizes(Shape(36, 32, 8, 128, 4096, 12_288, 151_936), is_tied=False),
}


class Precision(NamedTuple):
    """The type of numbers; `quantized` (`none`, `int8`, `fp8`) concerns the layers' matrices only."""

    dtype: str
    quantized: str = "none"

    @property
    def item(self) -> int:
        """Bytes of a number that is not quantized."""
        found: torch.dtype = getattr(torch, self.dtype)
        return found.itemsize

    def __str__(self) -> str:
        return self.dtype if self.quantized == "none" else self.quantized


@dataclass(frozen=True)
class Device:
    """The device a model is to run on; only CUDA devices have a `capability`."""

    name: str
    total: int  # bytes
    free: int
    capability: tuple[int, int] | None = None

    @property
    def is_cuda(self) -> bool:
        """Whether it is a GPU, to whose memory batches are fitted."""
        return self.capability is not None


def device_of(on: torch.device) -> Device | None:
    """Return the device's current state; None if its memory is unknown."""
    if on.type == "cuda":
        free, total = torch.cuda.mem_get_info(on)
        return Device(torch.cuda.get_device_name(on), total, free, torch.cuda.get_device_capability(on))
    available = available_bytes() if on.type == "cpu" else None
    return None if available is None else Device("cpu", available, available)


@dataclass(frozen=True)
class Plan:
    """What a model takes of a device. `budget_tokens` is per batch; below `LEAST_TOKENS` if it does not fit, 0 on CPUs."""

    precision: Precision
    device: Device
    weights: int  # bytes
    least: int  # bytes, with the smallest batch
    budget_tokens: int

    @property
    def fits(self) -> bool:
        """Whether it fits beside what the device already holds."""
        return self.least <= self.device.free

    def told(self, asked_tokens: int = 0) -> str:
        """Describe the plan for people; `asked_tokens`: of a batch, if a setting fixes them."""
        where = f"in {self.precision} on {self.device.name}"
        if not self.device.is_cuda:
            return f"{where}: weights {_size(self.weights)}, {_size(self.device.free)} available"
        batch = f"{asked_tokens:,} tokens, as set" if asked_tokens else f"about {self.budget_tokens // 100 * 100:,} tokens"
        return f"{where} ({_size(self.device.total)}): weights {_size(self.weights)}, batches of {batch}"


def plan(sizes: Sizes, precision: Precision, device: Device) -> Plan:
    """Plan a network of these sizes on a device."""
    if not device.is_cuda:
        # oneDNN copies a head that is the embedding; eight bits are made from weights that were loaded completely.
        weights = weights_bytes(sizes._replace(is_tied=False), Precision(precision.dtype))
        return Plan(precision, device, weights, weights, 0)
    weights, item = weights_bytes(sizes, precision), precision.item
    beside = RESERVED + logits_bytes(sizes.shape, item)
    least = weights + beside + int(LEAST_TOKENS * token_bytes(sizes.shape, item) / SHARE)
    return Plan(precision, device, weights, least, batch_tokens(sizes.shape, item, device.free - weights))


def batch_tokens(shape: Shape, item: int, free: int) -> int:
    """Return the tokens of the largest batch that fits into `free` bytes of a GPU, beside the weights."""
    room = SHARE * (free - RESERVED - logits_bytes(shape, item))
    return max(0, min(GPU_TOKENS, int(room / token_bytes(shape, item))))


def weights_bytes(sizes: Sizes, precision: Precision) -> int:
    """Return bytes of the layers' matrices, which may be quantized, and of embedding, head and norms, which are not."""
    shape = sizes.shape
    matrices = shape.hidden * (2 * (shape.heads + shape.kv_heads) * shape.head_dim + 3 * shape.intermediate)
    norms = (2 * shape.hidden + 2 * shape.head_dim) * shape.layers + shape.hidden
    tables = (1 if sizes.is_tied else 2) * shape.vocabulary * shape.hidden
    each = precision.item if precision.quantized == "none" else 1
    return shape.layers * matrices * each + (tables + norms) * precision.item


def kept_bytes(shape: Shape, item: int) -> int:
    """Return bytes of a token's keys and values in all layers."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * item


def token_bytes(shape: Shape, item: int) -> int:
    """Return bytes per token of a budget: its keys and values wherever they are stored, and one layer's widest activations.

    The latter are the stream and its norm, queries, keys, values and their mixture, gate and up and their product.
    """
    return (WORKSPACES + POOLED) * kept_bytes(shape, item) + passing_bytes(shape, item)


def passing_bytes(shape: Shape, item: int) -> int:
    """Return bytes of a token's widest activations in one layer."""
    return item * (6 * shape.hidden + 3 * shape.intermediate + 6 * shape.heads * shape.head_dim)


def logits_bytes(shape: Shape, item: int) -> int:
    """Return bytes of the rows whose logits exist at once."""
    return HEAD_ROWS * shape.vocabulary * item


def plan_for(name: str, config: Any, precision: Precision, device: Device | None) -> Plan | None:
    """Plan a model from its config.json; None if the device is unknown. Raises NoRoomError if it does not fit."""
    if device is None:
        return None
    sizes = Sizes(shape_of(config), bool(getattr(config, "tie_word_embeddings", False)))
    made = plan(sizes, precision, device)
    if made.fits:
        return made
    whole = f" of {_size(device.total)}" if device.is_cuda else ""
    of_weights = f", {_size(made.weights)} of them its weights" if device.is_cuda else " to load its weights"
    freed = "free its memory, or " if device.is_cuda and made.least <= device.total else ""
    raise NoRoomError(
        f"model {name!r} in {precision} does not fit on {device.name}: it needs at least {_size(made.least)}{of_weights}, and "
        f"{_size(device.free)}{whole} are free; {freed}use {', or '.join(_fitting(precision, device)) or 'another device'}."
    )


def _fitting(precision: Precision, device: Device) -> Iterator[str]:
    """Yield the published sizes that fit on the device, by precision."""
    for other in _precisions(precision, device):
        plans = {size: plan(sizes, other, device) for size, sizes in PUBLISHED.items()}
        found = [f"{size} ({_size(made.weights)})" for size, made in plans.items() if made.fits]
        if found:
            how = f"in {other}" if other.quantized == "none" else f"in {other} (GUARDFLEET_ENGINE__QUANTIZE)"
            yield f"{' or '.join([', '.join(found[:-1]), found[-1]] if found[1:] else found)} {how}"


def _precisions(precision: Precision, device: Device) -> list[Precision]:
    asked, half = Precision(precision.dtype), Precision("bfloat16")
    plain = [asked] if asked.item == half.item else [asked, half]
    if device.capability is None:
        return plain
    kinds = ["int8", "fp8"] if device.capability >= FP8_CAPABILITY else ["int8"]
    return [*plain, *(plain[-1]._replace(quantized=kind) for kind in kinds)]


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 10**8 else f"{n_bytes / 1e6:.0f} MB"


def largest(precision: Precision, device: Device) -> str | None:
    """Return the largest published size that fits on the device, with the precision it fits in; None if none does."""
    for size, sizes in reversed(PUBLISHED.items()):
        for other in _precisions(precision, device):
            if plan(sizes, other, device).fits:
                return f"{size} in {other}"
    return None
