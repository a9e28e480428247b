"""Eight-bit matrices and their products: an option, off by default.

Weights are scaled per output and activations per row, so that a text's answer does not depend on its neighbours in the batch.
Measure its effect first, on your own labelled texts: `guardfleet evaluate FILE --against int8`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from guardfleet.errors import ConfigurationError

FP8_CAPABILITY = (8, 9)  # Ada and Hopper: the first NVIDIA GPUs with fp8 matrix units
ROWS_HINT = 512  # the size of x that oneDNN's layout is chosen for; others work as well
LEVELS, MIDDLE, BYTES = 127, 128, 255
ARITHMETIC = "2"  # how inputs and weights are rounded: raised with each change, so that answers of another way are not reused
LEAST_ROWS = 32  # of a product on CUDA, whose int8 kernels need at least 17


class Rounded(NamedTuple):
    """An input (n, in) as `values` times `scale` (n, 1) in fp32, and its original type. `low` (n,): what 0 stands for; None: 0."""

    values: torch.Tensor
    scale: torch.Tensor
    dtype: torch.dtype
    low: torch.Tensor | None = None


Rounding = Callable[[torch.Tensor], Rounded]
Product = Callable[[Rounded], torch.Tensor]


class Matrix(NamedTuple):
    """A weight (out, in) as `values` in int8 or fp8 times `scale` (out,) in fp32."""

    values: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, weight: torch.Tensor, kind: str) -> "Matrix":
        """Round a weight to `int8` or `fp8`."""
        wide = weight.detach().float()
        top = wide.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny)
        if kind == "int8":
            scale = top / levels_for(wide.device)
            return cls((wide / scale[:, None]).round_().to(torch.int8), scale)
        scale = top / torch.finfo(torch.float8_e4m3fn).max
        return cls((wide / scale[:, None]).to(torch.float8_e4m3fn), scale)

    @classmethod
    def joined(cls, several: Sequence["Matrix"]) -> "Matrix":
        """Return one matrix whose product is all of theirs, side by side."""
        return cls(torch.cat([one.values for one in several]), torch.cat([one.scale for one in several]))

    def part(self, outputs: slice) -> "Matrix":
        """Return some of its outputs, without a copy."""
        return Matrix(self.values[outputs], self.scale[outputs])

    def exact(self) -> torch.Tensor:
        """Return what it represents, (out, in) in fp32."""
        return self.values.float() * self.scale[:, None]


class EightBitLinear(torch.nn.Module):
    """Replaces a linear layer of transformers' network. `is_exact`: do not round activations, for `reference`."""

    def __init__(self, matrix: Matrix, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.matrix = matrix
        self.bias = bias
        self.is_exact = False
        self._made: tuple[Rounding, Product] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As torch's linear."""
        if self.is_exact:
            return functional.linear(x.float(), self.matrix.exact(), self.bias).to(x.dtype)
        rounding, product = self._made = self._made or make_eight_bit(self.matrix)
        out = product(rounding(x.flatten(0, -2))).view(*x.shape[:-1], -1)
        return out if self.bias is None else out.add_(self.bias)


def require(kind: str, device: torch.device) -> None:
    """Raise ConfigurationError if the device cannot compute `int8` or `fp8`; `none` always works."""
    if kind == "fp8" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < FP8_CAPABILITY):
        raise ConfigurationError(f"quantize fp8: {device} has no fp8 matrix units: use int8, which runs everywhere.")


def quantize(network: Any, kind: str, device: torch.device) -> None:
    """Convert the matrices of the network's layers to `int8` or `fp8`, each on its way to the device; embedding and head stay.

    So a device with room for eight bits need not have it for sixteen.
    """
    for layer in network.model.layers:
        for owner in (layer.self_attn, layer.mlp):
            quantize_children(owner, kind, device)


def quantize_children(owner: Any, kind: str, device: torch.device) -> None:
    """Convert the linear layers that a module holds directly."""
    for name, child in list(owner.named_children()):
        if isinstance(child, torch.nn.Linear):
            bias = None if child.bias is None else child.bias.detach().to(device)
            setattr(owner, name, EightBitLinear(Matrix.of(child.weight.to(device), kind), bias))


def make_eight_bit(matrix: Matrix) -> tuple[Rounding, Product]:
    """Return how to round an input (n, in), and the product (n, out) of the rounded input, in the input's type."""
    if matrix.values.dtype is torch.float8_e4m3fn:
        return _to_fp8, functools.partial(_fp8, matrix)
    if matrix.values.device.type == "cuda":
        return _to_int8, functools.partial(_int8_on_cuda, matrix)
    if hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return _to_bytes, _onednn(matrix)
    return _to_int8, functools.partial(_int8, matrix)


def _to_fp8(x: torch.Tensor) -> Rounded:
    scale = _top(x) / torch.finfo(torch.float8_e4m3fn).max
    return Rounded((x.float() / scale).to(torch.float8_e4m3fn), scale, x.dtype)


def _fp8(matrix: Matrix, x: Rounded) -> torch.Tensor:
    out: torch.Tensor = torch._scaled_mm(  # noqa: SLF001 - it has no public name
        x.values,
        matrix.values.t(),
        scale_a=x.scale,
        scale_b=matrix.scale[None],
        out_dtype=torch.bfloat16,  # the only one offered
    )
    return out.to(x.dtype)


def _to_int8(x: torch.Tensor) -> Rounded:
    scale = _top(x) / 127
    return Rounded((x / scale).round_().to(torch.int8), scale, x.dtype)


def _int8_on_cuda(matrix: Matrix, x: Rounded) -> torch.Tensor:
    n, fill = len(x.values), LEAST_ROWS - len(x.values)
    values = functional.pad(x.values, (0, 0, 0, fill)) if fill > 0 else x.values
    out = torch._int_mm(values, matrix.values.t())[:n]  # noqa: SLF001 - it has no public name
    scaled: torch.Tensor = out * (x.scale * matrix.scale)
    return scaled.to(x.dtype)


def _int8(matrix: Matrix, x: Rounded) -> torch.Tensor:
    return (functional.linear(x.values.float(), matrix.values.float()) * x.scale * matrix.scale).to(x.dtype)


def _to_bytes(x: torch.Tensor) -> Rounded:
    """Round to unsigned bytes from each row's least value to its greatest: what GELU leaves is hardly ever below 0."""
    low, high = x.amin(-1, keepdim=True).float(), x.amax(-1, keepdim=True).float()
    scale = ((high - low) / BYTES).clamp_min_(1e-12)
    signed = (x * (1 / scale)).sub_(low / scale + MIDDLE).round_().to(torch.int8)  # directly to unsigned takes nine times as long
    return Rounded(signed.view(torch.uint8).bitwise_xor_(MIDDLE), scale, x.dtype, low[:, 0])


def _onednn(matrix: Matrix) -> Product:
    packed = torch.ops.onednn.qlinear_prepack(matrix.values.contiguous(), [ROWS_HINT, matrix.values.shape[1]])
    none = torch.zeros(len(matrix.scale), dtype=torch.int32)
    apply, scale = torch.ops.onednn.qlinear_pointwise, matrix.scale.contiguous()
    sums = matrix.values.sum(1, dtype=torch.int64).float() * scale  # what an input of ones gives

    def product(x: Rounded) -> torch.Tensor:
        if x.low is None:
            raise ValueError("the input was rounded for another product")
        out: torch.Tensor = apply(x.values, 1.0, 0, packed, scale, none, None, 1.0, 0, torch.float32, "none", [], "")
        return out.mul_(x.scale).addr_(x.low, sums).to(x.dtype)

    return product


def _top(x: torch.Tensor) -> torch.Tensor:
    """Return (n, 1) in fp32: the largest value of each row, never 0."""
    return torch.maximum(x.amax(-1, keepdim=True), -x.amin(-1, keepdim=True)).float().clamp_min_(1e-12)


def levels_for(device: torch.device) -> int:
    """Return how many steps of a weight there are on each side of 0."""
    return levels_here() if device.type == "cpu" and hasattr(torch.ops.onednn, "qlinear_pointwise") else LEVELS


@functools.cache
def levels_here() -> int:
    """Return `LEVELS`, or 63 if this CPU's byte products overflow: without VNNI, pairs of them are added in 16 bits.

    The bit is taken from weights: inputs have outliers, and lose more by it (measured: half of the error where there are any).
    """
    rows, width = 32, 64
    weight = torch.full((rows, width), 127, dtype=torch.int8)
    packed = torch.ops.onednn.qlinear_prepack(weight, [rows, width])
    one, none = torch.ones(rows), torch.zeros(rows, dtype=torch.int32)
    values = torch.full((rows, width), 255, dtype=torch.uint8)
    out = torch.ops.onednn.qlinear_pointwise(values, 1.0, 128, packed, one, none, None, 1.0, 0, torch.float32, "none", [], "")
    return LEVELS if bool((out == 127 * 127 * width).all()) else 63
