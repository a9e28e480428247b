"""The steps of a pass between its products and its attentions, each one call: kernels on CUDA, or the same in plain torch."""

import functools
import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional

Tensor = torch.Tensor
MISSING = (ImportError, OSError, RuntimeError)  # no Triton, no folder for its cache, no C compiler or a GPU that it does not know


class Steps(NamedTuple):
    """One way to take them; each function below says what it does.

    All compute in fp32 and round once, to the dtype of their input. Sizes may be 0, last strides are 1, attentions are contiguous.
    """

    norm: Callable[[Tensor, Tensor, float], Tensor]  # x, weight, eps
    add_norm: Callable[[Tensor, Tensor, Tensor, float], Tensor]  # x, delta, weight, eps
    # projected, q_norm, k_norm, cos, sin, positions, eps, keys, values
    rotate: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, float, Tensor | None, Tensor | None], Tensor]
    gate: Callable[[Tensor], Tensor]  # gate and up, side by side
    merge: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], None]  # out, lse, other, other_lse, index


@functools.cache
def steps_for(device: torch.device, *, is_compiled: bool = False) -> Steps:
    """The fastest for a device: fused kernels on CUDA where Triton runs, which is tried out; by inductor if asked for."""
    if is_compiled:
        by_inductor = functools.partial(torch.compile, dynamic=True)
        return Steps(by_inductor(norm), by_inductor(add_norm), by_inductor(rotate), by_inductor(gate), by_inductor(merge))
    if device.type == "cuda":
        try:
            from worker.engine.forward import triton_kernels  # noqa: PLC0415 - imports Triton

            triton_kernels.try_out(device)
            return Steps(
                triton_kernels.norm, triton_kernels.add_norm, triton_kernels.rotate, triton_kernels.gate, triton_kernels.merge
            )
        except MISSING as error:
            log = logging.getLogger(__name__)
            log.warning("engine_unfused: plain torch between the products, for %s: %s", type(error).__name__, error)
    return Steps(norm, add_norm, rotate, gate, merge)


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm over the last dimension of x (n, hidden)."""
    return functional.rms_norm(x, (x.shape[-1],), weight, eps)


def add_norm(x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Add `delta` to x in place, both (n, hidden), and give the norm of the rounded sum."""
    return norm(x.add_(delta), weight, eps)


def rotate(
    projected: Tensor,
    q_norm: Tensor,
    k_norm: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor,
    eps: float,
    keys: Tensor | None,
    values: Tensor | None,
) -> Tensor:
    """Norm per head and rotary position of queries and keys; keys and values go to their places, the queries are returned.

    `projected` (n, (heads + 2 * kv_heads) * head_dim) holds queries, keys, values, in that order. `keys` and `values` are views
    (n, kv_heads, head_dim) to write to: None where only queries were projected; where only keys and values were, what is returned
    has no heads. `cos` and `sin`, the sine's first half negated, are contiguous tables (any, head_dim), looked up at `positions`
    (n,): 8 bytes a token read instead of two rows of a table made for the pass.
    """
    dim = cos.shape[-1]
    kv_heads = 0 if keys is None else keys.shape[1]
    heads = projected.shape[-1] // dim
    q, k, v = torch.split(projected.view(len(projected), heads, dim), [heads - 2 * kv_heads, kv_heads, kv_heads], 1)
    cos, sin = cos[positions][:, None].float(), sin[positions][:, None].float()
    if keys is not None and values is not None:
        keys.copy_(_turned(k, k_norm, cos, sin, eps))
        values.copy_(v)
    return _turned(q, q_norm, cos, sin, eps)


def gate(gate_up: Tensor) -> Tensor:
    """SiLU of the first half of (n, 2 * intermediate), times the second.

    The product alone is rounded. `silu(gate) * up` on 16 bit rounds SiLU as well: up to half a unit in the last place more.
    """
    gate, up = gate_up.float().chunk(2, -1)
    return (functional.silu(gate) * up).to(gate_up.dtype)


def merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor, index: Tensor | None) -> None:
    """Merge two attentions of the same queries over disjoint keys, in place: `out` (n, heads, head_dim), `lse` (heads, n) in fp32.

    With `index` (m,), of which no two are equal, the other is one of m queries and merged at these. An `lse` of either infinity
    means no keys: torch's flash attention gives +inf. Where neither has any, `out` becomes 0 and `lse` -inf.
    """
    places = slice(None) if index is None else index
    mine, theirs = (part.masked_fill(part == torch.inf, -torch.inf) for part in (lse[:, places], other_lse))
    total = torch.logaddexp(mine, theirs)
    base = total.masked_fill(total == -torch.inf, 0.0)
    lse[:, places] = total
    out[places] = (_weighted(out[places], mine - base) + _weighted(other, theirs - base)).to(out.dtype)


def _turned(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    normed = functional.rms_norm(x.float(), (x.shape[-1],), weight.float(), eps)
    low, high = normed.chunk(2, -1)
    return (normed * cos + torch.cat([high, low], -1) * sin).to(x.dtype)


def _weighted(out: Tensor, log_weight: Tensor) -> Tensor:
    """An attention times its weight (heads, n); what has none may be anything, NaN too."""
    weight = log_weight.exp().T[..., None]
    return (out.float() * weight).masked_fill(weight == 0, 0.0)
