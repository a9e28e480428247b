"""The steps between a pass's matrix products: norms, rotary positions, the gate. Bound by memory: each read counts."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional

from worker.engine.forward.steps import norm


class HeadNorm(NamedTuple):
    """Weights of the norm per head, and the same with swapped halves, as the rotation needs them."""

    weight: torch.Tensor
    swapped: torch.Tensor

    @classmethod
    def of(cls, weight: torch.Tensor) -> "HeadNorm":
        """Build from the norm's weight."""
        return cls(weight, weight.roll(len(weight) // 2))


class Elementwise(NamedTuple):
    """An implementation. `rotate` takes x (n, heads, head_dim) with cos and sin (n, head_dim), the sine's first half negated."""

    norm: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # x, weight
    rotate: Callable[[torch.Tensor, HeadNorm, torch.Tensor, torch.Tensor], torch.Tensor]  # x, norm, cos, sin
    gate: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # gate, up; either may be overwritten


def elementwise_for(device: torch.device, dtype: torch.dtype, eps: float, *, is_compiled: bool = False) -> Elementwise:
    """Return the fastest for a device, with the norms' `eps`; if compiled, inductor works at the first pass of each kind."""
    if is_compiled:
        one, two, three = (torch.compile(step, dynamic=True) for step in (norm, rotate, gate))
    elif device.type == "cpu" and dtype is torch.float32:
        one, two, three = cpu_norm, cpu_rotate, cpu_gate
    else:
        one, two, three = norm, rotate, gate
    return Elementwise(functools.partial(one, eps=eps), functools.partial(two, eps=eps), three)


def rotate(x: torch.Tensor, head: HeadNorm, cos: torch.Tensor, sin: torch.Tensor, eps: float) -> torch.Tensor:
    """Apply RMSNorm per head, then the rotary position."""
    half = x.shape[-1] // 2
    x = functional.rms_norm(x, (x.shape[-1],), head.weight, eps)
    return x * cos[:, None] + torch.cat([x[..., half:], x[..., :half]], -1) * sin[:, None]


def gate(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return SiLU of the gate, times the other."""
    return functional.silu(gate) * up


def cpu_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """As `norm`; the library's own writes three temporaries on CPUs."""
    return (x * _scale(x, eps)).mul_(weight)


def cpu_rotate(x: torch.Tensor, head: HeadNorm, cos: torch.Tensor, sin: torch.Tensor, eps: float) -> torch.Tensor:
    """As `rotate`, with the norm's weights merged into the table; overwrites x."""
    half = x.shape[-1] // 2
    x.mul_(_scale(x, eps))
    out = x * (cos * head.weight)[:, None]
    sin = (sin * head.swapped)[:, None]
    out[..., :half].addcmul_(x[..., half:], sin[..., :half])
    out[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return out


def cpu_gate(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """As `gate`, in place."""
    return functional.silu(gate, inplace=True).mul_(up)


def _scale(x: torch.Tensor, eps: float) -> torch.Tensor:
    """Return 1 / rms, reading x once."""
    squares: torch.Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
    return squares.div_(x.shape[-1]).add_(eps).rsqrt_()
