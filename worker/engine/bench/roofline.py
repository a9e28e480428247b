"""How many floating-point operations a pass costs, and how many the machine can do per second."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.decoding.partial_answers import PromptRow
from worker.engine.forward.cpu_network import CpuNetwork
from worker.engine.model.shape import Shape

LEAST_REPEATS = 3


def flops(shape: Shape, prefix: int, own: int, reads: int) -> float:
    """Return one row's cost in one pass, 2 per multiply-add; the last layer's queries and feed-forward count only where read."""
    keys_values = 4 * shape.hidden * shape.kv_heads * shape.head_dim
    rest = 4 * shape.hidden * shape.heads * shape.head_dim + 6 * shape.hidden * shape.intermediate
    pair = 4 * shape.heads * shape.head_dim
    matrices = shape.layers * own * keys_values + ((shape.layers - 1) * own + reads) * rest
    pairs = (shape.layers - 1) * (own * prefix + own * (own + 1) / 2) + reads * (prefix + own - (reads - 1) / 2)
    return matrices + pair * pairs + reads * 2 * shape.hidden * shape.vocabulary


def ceiling(backend: PackedBackend, seconds: float) -> dict[str, float]:
    """Return GFLOP/s of the model's own matrix products alone: as the engine calls them, and as torch's linear does."""
    network, shape = backend.network, backend.network.shape
    rows = network.chunk if isinstance(network, CpuNetwork) else 8192

    def numbers(*size: int) -> torch.Tensor:
        return torch.randn(*size, dtype=network.dtype, device=network.device)

    inputs = {width: numbers(rows, width) for width in (shape.hidden, shape.heads * shape.head_dim, shape.intermediate)}

    def engine() -> None:
        for width, product in network.products():
            product(inputs[width])

    q, kv = shape.heads * shape.head_dim, 2 * shape.kv_heads * shape.head_dim
    sizes = [(q + kv, shape.hidden), (shape.hidden, q), (2 * shape.intermediate, shape.hidden), (shape.hidden, shape.intermediate)]
    weights = [numbers(*size) for size in sizes]

    def plain() -> None:
        for _ in range(shape.layers):
            for weight in weights:
                functional.linear(inputs[weight.shape[1]], weight)

    done = 2.0 * rows * shape.layers * sum(weight.numel() for weight in weights)
    with torch.inference_mode():
        return {
            "engine_gflop_s": _rate(engine, done, seconds, network.device),
            "linear_gflop_s": _rate(plain, done, seconds, network.device),
        }


def _rate(work: Callable[[], None], flop: float, seconds: float, device: torch.device) -> float:
    """Return the median rate of repeats."""
    work()
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while len(rates) < LEAST_REPEATS or time.perf_counter() < end:
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        rates.append(flop / (time.perf_counter() - started) / 1e9)
    return round(statistics.median(rates), 1)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def work_of(backend: PackedBackend, texts: Sequence[str]) -> float:
    """Return the FLOPs of the first passes over the texts."""
    mode = backend.modes[0]
    rows = [row for row in backend.prepare(texts) if isinstance(row, PromptRow)]
    reads = 1 + len(mode.draft.tokens) + bool(mode.aside.tokens)
    return sum(flops(backend.network.shape, row.prefix.n, len(row.ids) + mode.n_drafted, reads) for row in rows)
