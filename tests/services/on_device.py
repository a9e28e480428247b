"""What is to hold on a device, as figures: for `tests/gpu`, `benchmarks/gpu.py --all`, and with a CPU in the GPU's place."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.forward import steps
from worker.engine.forward.attention import Workspace
from worker.engine.forward.geometry import Prefix
from worker.engine.forward.tree import Tree
from worker.engine.forward.tree_attention import TreeAttention
from worker.engine.forward.varlen import Cuts, Varlen, varlen_by_loop
from worker.engine.model.loading import LoadedModel, load
from worker.engine.model.shape import Shape
from worker.engine.verification.reference import Reference, ask_transformers
from worker.engine.verification.self_test import logits_of, spread

EPS = 1e-6
ROUNDINGS = 16  # of fp32, of the largest value: what different orders of the same sums may differ by
STEPS_OFF = 2.0  # of the format: both are rounded once, from values that differ by roundings of fp32
MIXTURE_OFF = 4.0  # of the format, of what the values weigh: weights are rounded before they are multiplied, then the mixture is
LSE_OFF = 1e-3
GQA = Shape(layers=1, heads=16, kv_heads=8, head_dim=128, hidden=1024, intermediate=3072, vocabulary=0)
TEXTS = [f"What is {n} plus {n}? " * (1 + n % 7) for n in range(60)]
# On a CPU 1 in 100 answers of the demo model turns from fp32 to bf16, and each of those says that it was close, as 7 in 100 do.
TURNED, CLOSE = 0.01, 0.07


class Call(NamedTuple):
    """A step with its arguments, made anew each time, which of them it writes to, and the bytes that it has to move."""

    name: str
    arguments: Callable[[], tuple[Any, ...]]
    written: tuple[int, ...]
    moved: int


def calls(shape: Shape, tokens: int, device: torch.device, dtype: torch.dtype) -> list[Call]:
    """Each step as a pass of so many tokens asks for it."""

    def numbers(*sizes: int, kind: torch.dtype = dtype) -> torch.Tensor:
        dice = torch.Generator(device).manual_seed(sum(sizes))
        return torch.randn(sizes, generator=dice, device=device).to(kind)

    heads, kv, dim, item = shape.heads, shape.kv_heads, shape.head_dim, dtype.itemsize
    mixed, own = tokens * heads * dim * item, tokens * kv * dim * item

    def turned() -> tuple[Any, ...]:
        keys, values = numbers(2, kv, tokens + 3, dim)[:, :, :tokens].transpose(1, 2)  # as the workspace has them
        positions = torch.arange(tokens, device=device) % 4096
        projected = numbers(tokens, (heads + 2 * kv) * dim)
        return projected, *numbers(2, dim), *numbers(2, 4096, dim), positions, EPS, keys, values

    def merged() -> tuple[Any, ...]:
        parts = numbers(tokens, heads, dim), numbers(heads, tokens, kind=torch.float32)
        return *parts, numbers(tokens, heads, dim).flip(0).contiguous(), parts[1].flip(1).contiguous(), None

    wide = tokens * shape.hidden * item
    return [
        Call("norm", lambda: (numbers(tokens, shape.hidden), numbers(shape.hidden), EPS), (), 2 * wide),
        Call("add_norm", lambda: (*numbers(2, tokens, shape.hidden), numbers(shape.hidden), EPS), (0,), 4 * wide),
        Call("rotate", turned, (7, 8), 2 * (mixed + 2 * own)),
        Call("gate", lambda: (numbers(tokens, 2 * shape.intermediate),), (), 3 * tokens * shape.intermediate * item),
        Call("merge", merged, (0, 1), 3 * mixed + 12 * tokens * heads),
    ]


def steps_off(call: Call, found: Callable[..., Any]) -> float:
    """By how many steps of the format a kernel is off from the plain step, at most."""
    mine, plain = call.arguments(), call.arguments()
    results = found(*mine), getattr(steps, call.name)(*plain)
    pairs = [(mine[at], plain[at]) for at in call.written]
    return max(_off(*pair) for pair in [*pairs, *([] if results[0] is None else [results])])


def _off(found: torch.Tensor, right: torch.Tensor) -> float:
    rounding = torch.finfo(torch.float32).eps * ROUNDINGS
    eps = max(torch.finfo(right.dtype).eps, rounding)
    found, right = found.float(), right.float()
    beyond = ((found - right).abs() - rounding * right.abs().max()).clamp_min(0)
    return float((beyond / (eps * right.abs()).clamp_min(torch.finfo(torch.float32).tiny)).max())


# Queries and keys of sequences; of two of them nobody asks, one has no keys, and in the last two cases the longest asks one.
SEQUENCES = {
    "unequal": ([5, 130, 1, 64], [206, 331, 202, 64]),
    "some ask nothing": ([40, 0, 0, 7, 3], [300, 12, 0, 64, 3]),
    "no keys": ([4, 2, 9], [17, 0, 300]),
    "one query in some": ([1, 0, 1, 0, 1], [300, 5, 17, 0, 1]),
    "one query in each": ([1, 1, 1], [300, 17, 1]),
}


class Mixtures(NamedTuple):
    """How far a kernel is off from the loop: in steps of the format, of what the values weigh, and in the log-sum-exp."""

    mixture: float
    lse: float

    @property
    def holds(self) -> bool:
        """Whether rounding explains it."""
        return self.mixture <= MIXTURE_OFF and self.lse <= LSE_OFF


def mixtures_off(
    varlen: Varlen, sequences: str, device: torch.device, dtype: torch.dtype, *, causal: bool, heads: int = 4, kv_heads: int = 2
) -> Mixtures:
    """Keys and values lie as in the workspace: by head, with others behind them."""
    queries, keys = SEQUENCES[sequences]
    dice = torch.Generator(device).manual_seed(1)
    q = torch.randn(sum(queries), heads, 64, generator=dice, device=device).to(dtype)
    k, v = torch.randn(2, kv_heads, sum(keys) + 5, 64, generator=dice, device=device).to(dtype)[:, :, : sum(keys)].transpose(1, 2)
    cuts = Cuts.of(queries, device), Cuts.of(keys, device)
    mixed, lse = varlen(q, k, v, *cuts, causal=causal)
    exact = [part.float() for part in (q, k, v)]
    right, right_lse = varlen_by_loop(*exact, *cuts, causal=causal)
    weight, _ = varlen_by_loop(*exact[:2], exact[2].abs(), *cuts, causal=causal)
    if lse.shape != (heads, len(q)) or lse.dtype is not torch.float32:
        return Mixtures(float("inf"), float("inf"))
    sees = right_lse.isfinite()
    if not torch.equal(lse.isfinite(), sees):
        return Mixtures(float("inf"), float("inf"))
    off = (mixed.float() - right).abs() / (weight * torch.finfo(dtype).eps).clamp_min(1e-30)
    return Mixtures(float(off[sees.T].max()), float((lse - right_lse)[sees].abs().max()))


def opened(dtype: str, device: str, quantized: str = "none") -> tuple[PackedBackend, Reference]:
    """The demo model's pass as on CUDA, and what transformers says there; raises what the load would."""
    loaded = load("demo", device=device, dtype=dtype, quantized=quantized)
    reference = ask_transformers(loaded)
    return packed(loaded), reference


def packed(loaded: LoadedModel) -> PackedBackend:
    """As on CUDA, wherever it is."""
    return PackedBackend(loaded, budget_tokens=65_536 if loaded.device.type == "cuda" else 8192, streams=1, as_on_cuda=True)


@torch.inference_mode()
def spreads(backend: PackedBackend, reference: Reference) -> Iterator[tuple[int, float]]:
    """Of each probe its tokens, and how much of what it may be off the pass is."""
    for probe, logits in zip(reference.probes, logits_of(backend, reference.probes, reference.depth), strict=True):
        off, allowed = spread(logits, probe)
        yield len(probe.encoded.ids), off / allowed


def answers(backend: Any, texts: Sequence[Any]) -> list[Any]:
    """Of a backend, whatever further passes they take."""
    todo = list(enumerate(backend.prepare(texts)))
    out: dict[int, Any] = {}
    while todo:
        some, todo = todo[:256], todo[256:]
        for (i, _), done in zip(some, backend.run([row for _, row in some]), strict=True):
            if hasattr(done, "raw"):
                out[i] = done
            else:
                todo.append((i, done))
    return [out[i] for i in range(len(texts))]


class Turned(NamedTuple):
    """Answers in 16 bit beside those in fp32: those that differ, those of them that do not say they were close, and who says so."""

    texts: int
    turned: int
    silently: int
    close: int

    @property
    def holds(self) -> bool:
        """Near ties alone turn, and few are: a count that one run in a thousand reaches by chance is too many."""

        def most(share: float) -> float:
            return share * self.texts + 3.1 * (share * self.texts) ** 0.5 + 1

        return not self.silently and self.turned <= most(TURNED) and self.close <= most(CLOSE)


def turned(in_16_bit: Sequence[Any], exact: Sequence[Any]) -> Turned:
    """Count."""
    other = [found for found, wanted in zip(in_16_bit, exact, strict=True) if found.raw != wanted.raw]
    silently = sum(not found.is_close for found in other)
    return Turned(len(exact), len(other), silently, sum(found.is_close for found in in_16_bit))


def mix_trees(device: torch.device, dtype: torch.dtype, lengths: Sequence[int]) -> tuple[int, int]:
    """Attention of a further pass behind rows of these lengths: bytes of all keys and values, and of a rectangle of them."""
    contexts = [torch.ones(1, 2, GQA.kv_heads, n, GQA.head_dim, dtype=dtype, device=device) for n in lengths]
    nothing = Prefix((), torch.empty(1, 2, GQA.kv_heads, 0, GQA.head_dim, dtype=dtype, device=device))
    trees = [Tree.chain([1, 2, 3])] * len(lengths)
    attention = TreeAttention(Workspace(GQA, device, dtype), [nothing] * len(lengths), contexts, trees)
    nodes = sum(len(tree.parents) for tree in trees)
    attention.store(0, 0, *torch.ones(2, nodes, GQA.kv_heads, GQA.head_dim, dtype=dtype, device=device))
    attention.ask(0, torch.ones(nodes, GQA.heads, GQA.head_dim, dtype=dtype, device=device))
    attention.mix(0, reads_only=False)
    token = 2 * GQA.kv_heads * GQA.head_dim * dtype.itemsize
    return sum(lengths) * token, len(lengths) * max(lengths) * token
