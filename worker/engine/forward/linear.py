"""Compute y = x Wᵀ at the machine's best rate, for one weight or for several with the same input.

On CPUs, oneDNN with weights packed once for its kernels is about twice as fast as `torch.nn.functional.linear` on AMD processors,
whose AVX-512 units MKL leaves idle (docs/decisions/0005). Elsewhere the library's own linear is as good.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from worker.engine.model.quantize import ROWS_HINT, EightBitLinear, Matrix, make_eight_bit

Weight = torch.Tensor | Matrix  # (out, in)
Linear = Callable[[torch.Tensor], torch.Tensor]
ALL = slice(None)


def weight_of(module: Any) -> Weight:
    """Return the weight of a linear layer of transformers' network."""
    found: Weight = module.matrix if isinstance(module, EightBitLinear) else module.weight
    return found


def joined(weights: Sequence[Weight]) -> Weight:
    """Return one weight whose product is all of theirs, side by side."""
    matrices = [weight for weight in weights if isinstance(weight, Matrix)]
    return Matrix.joined(matrices) if matrices else torch.cat([weight for weight in weights if isinstance(weight, torch.Tensor)])


def has_onednn(weight: torch.Tensor) -> bool:
    """Return whether oneDNN's prepacked linear supports such weights; in bf16 the CPU needs AVX-512 or AVX_NE_CONVERT."""
    return (
        weight.device.type == "cpu"
        and (weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and _has_bf16_kernels()))
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


@functools.cache
def _has_bf16_kernels() -> bool:
    asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return asked is not None and bool(asked())


def make_linear(weight: Weight, bias: torch.Tensor | None = None) -> Linear:
    """Return a function (n, in) -> (n, out). It may hold a copy of the weight in another layout."""
    if isinstance(weight, Matrix):
        rounding, product = make_eight_bit(weight)
        return (lambda x: product(rounding(x))) if bias is None else lambda x: product(rounding(x)).add_(bias)
    if not has_onednn(weight):
        return lambda x: functional.linear(x, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), ROWS_HINT)  # noqa: SLF001 - it has no public name
    apply = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
    return lambda x: apply(x, packed, bias, "none", [], "")


class Linears:
    """Functions (n, in) -> (n, out) of several weights with one input, which is rounded once if they have eight bits."""

    def __init__(self, weights: Sequence[Weight]) -> None:
        eight = [make_eight_bit(weight) for weight in weights if isinstance(weight, Matrix)]
        self._rounding = eight[0][0] if eight else _as_it_is
        self._each: list[Callable[[Any], torch.Tensor]] = [product for _, product in eight] or [make_linear(w) for w in weights]

    def __call__(self, x: torch.Tensor, which: slice = ALL) -> list[torch.Tensor]:
        """Apply all of them, or some."""
        into = self._rounding(x)
        return [product(into) for product in self._each[which]]


def _as_it_is(x: torch.Tensor) -> Any:
    return x


def make_product(like: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return a function (n, k), (m, k) -> (n, m): x yᵀ of two tensors that are both new, such as queries and keys."""
    if not has_onednn(like):
        return functional.linear
    apply = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
    return lambda x, y: apply(x, y, None, "none", [], "")
