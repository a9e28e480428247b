"""The steps of a pass between its products and its attentions, one call each: kernels on CUDA, or the same in plain torch."""

import functools
import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn import functional

Tensor = torch.Tensor
MISSING = (ImportError, OSError, RuntimeError)  # no Triton, no folder for its cache, no C compiler, or an unknown GPU


class Steps(NamedTuple):
    """One implementation of the steps; each function below documents its step.

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
    """Return the fastest for a device: fused kernels on CUDA if Triton works, which is tried out; compiled if asked for."""
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
            log.warning("engine_unfused: plain torch between the products, because of %s: %s", type(error).__name__, error)
    return Steps(norm, add_norm, rotate, gate, merge)


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Apply RMSNorm over the last dimension of x (n, hidden)."""
    return functional.rms_norm(x, (x.shape[-1],), weight, eps)


def add_norm(x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Add `delta` to x in place, both (n, hidden), and return the norm of the rounded sum."""
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
    """Apply norm per head and rotary position to queries and keys; write keys and values to their places, return the queries.

    `projected` (n, (heads + 2 * kv_heads) * head_dim) holds queries, keys, values, in that order. `keys` and `values` are views
    (n, kv_heads, head_dim) to write to: None if only queries were projected; if only keys and values were, the result has no
    heads. `cos` and `sin`, the sine's first half negated, are contiguous tables (any, head_dim), indexed by `positions` (n,): this
    reads 8 bytes per token, instead of two rows of a table made for the pass.
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
    """Return SiLU of the first half of (n, 2 * intermediate), times the second.

    Only the product is rounded. In 16 bits `silu(gate) * up` also rounds SiLU: up to half a unit in the last place more.
    """
    gate, up = gate_up.float().chunk(2, -1)
    return (functional.silu(gate) * up).to(gate_up.dtype)


def merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor, index: Tensor | None) -> None:
    """Merge two attentions of the same queries over disjoint keys, in place: `out` (n, heads, head_dim), `lse` (heads, n) in fp32.

    With `index` (m,), without repeats, the other has m queries and is merged at these. An `lse` of either infinity means no keys:
    torch's flash attention gives +inf. If neither has any, `out` becomes 0 and `lse` -inf.
    """
    chosen = slice(None) if index is None else index
    mine, theirs = (part.masked_fill(part == torch.inf, -torch.inf) for part in (lse[:, chosen], other_lse))
    total = torch.logaddexp(mine, theirs)
    base = total.masked_fill(total == -torch.inf, 0.0)
    lse[:, chosen] = total
    out[chosen] = (_weighted(out[chosen], mine - base) + _weighted(other, theirs - base)).to(out.dtype)


def _turned(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    normed = functional.rms_norm(x.float(), (x.shape[-1],), weight.float(), eps)
    low, high = normed.chunk(2, -1)
    return (normed * cos + torch.cat([high, low], -1) * sin).to(x.dtype)


def _weighted(out: Tensor, log_weight: Tensor) -> Tensor:
    """Return an attention times its weight (heads, n); where the weight is 0, the value may be anything, even NaN."""
    weight = log_weight.exp().T[..., None]
    return (out.float() * weight).masked_fill(weight == 0, 0.0)
