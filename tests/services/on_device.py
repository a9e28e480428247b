"""Numeric checks of a device: for `tests/gpu`, `benchmarks/gpu.py --all`, and with a CPU in place of the GPU."""

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
ROUNDINGS = 16  # in fp32 roundings of the largest value: the allowed difference between sums in different orders
STEPS_OFF = 2.0  # in steps of the format: both are rounded once, from values that differ by fp32 roundings
MIXTURE_OFF = 4.0  # in steps of the format, relative to the weighted values: the weights are rounded, then the mixture
LSE_OFF = 1e-3
GQA = Shape(layers=1, heads=16, kv_heads=8, head_dim=128, hidden=1024, intermediate=3072, vocabulary=0)
TEXTS = [f"What is {n} plus {n}? " * (1 + n % 7) for n in range(60)]
# On a CPU, 1 in 100 answers of the demo model differs between fp32 and bf16, and each is marked as close, as 7 in 100 are.
TURNED, CLOSE = 0.01, 0.07


class Call(NamedTuple):
    """A step: its arguments, created anew each time, which of them it writes to, and the bytes that it must move."""

    name: str
    arguments: Callable[[], tuple[Any, ...]]
    written: tuple[int, ...]
    moved: int


def calls(shape: Shape, tokens: int, device: torch.device, dtype: torch.dtype) -> list[Call]:
    """Each step as a pass of so many tokens calls it."""

    def numbers(*sizes: int, kind: torch.dtype = dtype) -> torch.Tensor:
        dice = torch.Generator(device).manual_seed(sum(sizes))
        return torch.randn(sizes, generator=dice, device=device).to(kind)

    heads, kv, dim, item = shape.heads, shape.kv_heads, shape.head_dim, dtype.itemsize
    mixed, own = tokens * heads * dim * item, tokens * kv * dim * item

    def turned() -> tuple[Any, ...]:
        keys, values = numbers(2, kv, tokens + 3, dim)[:, :, :tokens].transpose(1, 2)  # laid out as in the workspace
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
    """The largest difference between a kernel and the plain step, in steps of the format."""
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


# Lengths of queries and keys by sequence: some have no queries, one has no keys, and in the last two cases none has over one query.
SEQUENCES = {
    "unequal": ([5, 130, 1, 64], [206, 331, 202, 64]),
    "some ask nothing": ([40, 0, 0, 7, 3], [300, 12, 0, 64, 3]),
    "no keys": ([4, 2, 9], [17, 0, 300]),
    "one query in some": ([1, 0, 1, 0, 1], [300, 5, 17, 0, 1]),
    "one query in each": ([1, 1, 1], [300, 17, 1]),
}


class Mixtures(NamedTuple):
    """How far a kernel is off from the loop: in steps of the format relative to the weighted values, and in the log-sum-exp."""

    mixture: float
    lse: float

    @property
    def holds(self) -> bool:
        """Whether rounding explains the difference."""
        return self.mixture <= MIXTURE_OFF and self.lse <= LSE_OFF


def mixtures_off(
    varlen: Varlen, sequences: str, device: torch.device, dtype: torch.dtype, *, causal: bool, heads: int = 4, kv_heads: int = 2
) -> Mixtures:
    """Compare a kernel with the loop. Keys and values are laid out as in the workspace: by head, with others after them."""
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
    """The demo model's pass as on CUDA, and the answers of transformers; raises what loading raises."""
    loaded = load("demo", device=device, dtype=dtype, quantized=quantized)
    reference = ask_transformers(loaded)
    return packed(loaded), reference


def packed(loaded: LoadedModel) -> PackedBackend:
    """The packed backend as on CUDA, on any device."""
    return PackedBackend(loaded, budget_tokens=65_536 if loaded.device.type == "cuda" else 8192, streams=1, as_on_cuda=True)


@torch.inference_mode()
def spreads(backend: PackedBackend, reference: Reference) -> Iterator[tuple[int, float]]:
    """Yield for each probe its tokens, and how far the pass is off as a share of what is allowed."""
    for probe, logits in zip(reference.probes, logits_of(backend, reference.probes, reference.depth), strict=True):
        off, allowed = spread(logits, probe)
        yield len(probe.encoded.ids), off / allowed


def answers(backend: Any, texts: Sequence[Any]) -> list[Any]:
    """The backend's answers, whatever further passes they take."""
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
    """Answers in 16 bit compared with fp32: how many differ, how many of these are not marked as close, and how many are marked."""

    texts: int
    turned: int
    silently: int
    close: int

    @property
    def holds(self) -> bool:
        """Whether only close calls differ, and few: a count that one run in a thousand reaches by chance is too high."""

        def most(share: float) -> float:
            return share * self.texts + 3.1 * (share * self.texts) ** 0.5 + 1

        return not self.silently and self.turned <= most(TURNED) and self.close <= most(CLOSE)


def turned(in_16_bit: Sequence[Any], exact: Sequence[Any]) -> Turned:
    """Count the answers that differ."""
    other = [found for found, wanted in zip(in_16_bit, exact, strict=True) if found.raw != wanted.raw]
    silently = sum(not found.is_close for found in other)
    return Turned(len(exact), len(other), silently, sum(found.is_close for found in in_16_bit))


def mix_trees(device: torch.device, dtype: torch.dtype, lengths: Sequence[int]) -> tuple[int, int]:
    """Run a further pass's attention after rows of these lengths; return the bytes of their keys and values, and of a rectangle."""
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
