"""`steps.Steps` as Triton kernels: each reads its inputs once and writes its outputs once. The only module to import Triton.

How a kernel is compiled does not depend on the batch: the first pass compiles all of them, and nothing is tuned at run time.
"""

import subprocess
from typing import Any

import torch
import triton
import triton.language as tl
from triton.errors import TritonError

Tensor = torch.Tensor
TOKENS = 16  # a program of `merge`: one head of this many tokens, whose lse are adjacent
COLUMNS = 1024  # a program of `gate`: 4 warps of 16-byte loads


def try_out(device: torch.device) -> None:
    """Raise OSError or RuntimeError if a kernel cannot be compiled or launched."""
    try:
        norm(torch.ones(1, 1, device=device), torch.ones(1, device=device), 0.0)
    except (TritonError, subprocess.SubprocessError) as error:
        raise RuntimeError(str(error)) from error


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `steps.norm`."""
    n, hidden = x.shape
    _check((x, (n, hidden)), (weight, (hidden,)))
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    block = triton.next_power_of_2(hidden)
    _launch(_norm, (n,), out, x, weight, x.stride(0), hidden, eps, BLOCK=block, num_warps=_warps(block))
    return out


def add_norm(x: Tensor, delta: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `steps.add_norm`."""
    n, hidden = x.shape
    _check((x, (n, hidden)), (delta, (n, hidden)), (weight, (hidden,)))
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    block = triton.next_power_of_2(hidden)
    strides = x.stride(0), delta.stride(0)
    _launch(_add_norm, (n,), out, x, delta, weight, *strides, hidden, eps, BLOCK=block, num_warps=_warps(block))
    return out


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
    """As `steps.rotate`."""
    n, dim = len(projected), cos.shape[-1]
    kv_heads = 0
    kv_strides: tuple[int, ...] = (0, 0, 0, 0)
    if keys is not None and values is not None:
        kv_heads, kv_strides = keys.shape[1], (*keys.stride()[:2], *values.stride()[:2])
        _check((keys, (n, kv_heads, dim)), (values, (n, kv_heads, dim)))
    heads = projected.shape[1] // dim - 2 * kv_heads
    _check((projected, (n, (heads + 2 * kv_heads) * dim)), (q_norm, (dim,)), (k_norm, (dim,)), (positions, (n,)))
    if not (cos.is_contiguous() and sin.is_contiguous() and sin.shape == cos.shape):
        raise ValueError("the tables of cosines and sines must be contiguous and have the same shape")
    q = projected.new_empty(n, heads, dim)
    # All heads of a token in one program: it reads its row of the tables once, and waits for some KB at a time.
    _launch(
        _rotate,
        (n,),
        projected,
        q if heads else None,
        keys,
        values,
        q_norm,
        k_norm,
        cos,
        sin,
        positions,
        projected.stride(0),
        *kv_strides,
        eps,
        HEADS=heads,
        KV_HEADS=kv_heads,
        DIM=dim,
        Q_ROWS=triton.next_power_of_2(heads),
        KV_ROWS=triton.next_power_of_2(kv_heads),
        HALF=triton.next_power_of_2(dim // 2),
        num_warps=min(4, _warps(max(heads, kv_heads) * dim // 2)),  # more warps would make loads of the few keys and values narrow
    )
    return q


def gate(gate_up: Tensor) -> Tensor:
    """As `steps.gate`."""
    n, size = len(gate_up), gate_up.shape[1] // 2
    _check((gate_up, (n, 2 * size)))
    out = gate_up.new_empty(n, size)
    _launch(_gate, (n, triton.cdiv(size, COLUMNS)), out, gate_up, gate_up.stride(0), size, BLOCK=COLUMNS, num_warps=4)
    return out


def merge(out: Tensor, lse: Tensor, other: Tensor, other_lse: Tensor, index: Tensor | None) -> None:
    """As `steps.merge`; `out` and `other` are contiguous."""
    (n, heads, dim), m = out.shape, len(other)
    _check((lse, (heads, n)), (other, (m, heads, dim)), (other_lse, (heads, m)))
    _check((out, (m, heads, dim)) if index is None else (index, (m,)))
    if not (out.is_contiguous() and other.is_contiguous()):
        raise ValueError("attentions to merge must be contiguous")
    grid = triton.cdiv(m, TOKENS), heads
    strides, cols = (lse.stride(0), other_lse.stride(0)), triton.next_power_of_2(dim)
    _launch(_merge, grid, out, lse, other, other_lse, index, m, *strides, heads, DIM=dim, COLS=cols, TOKENS=TOKENS, num_warps=4)


def _check(*expected: tuple[Tensor, tuple[int, ...]]) -> None:
    """Raise ValueError for tensors of other shapes, beyond which a kernel would read and write."""
    for tensor, shape in expected:
        if tensor.shape != shape or (tensor.stride(-1) != 1 and tensor.shape[-1] > 1):
            raise ValueError(f"expected {shape} with a last stride of 1, got {tuple(tensor.shape)} with strides {tensor.stride()}")


def _launch(kernel: Any, grid: tuple[int, ...], *args: object, **meta: int) -> None:
    # Triton launches on the thread's current device, wherever the tensors are.
    with torch.cuda.device_of(args[0]):  # type: ignore[no-untyped-call]
        kernel[grid](*args, enable_fp_fusion=True, **meta)  # explicit, because its default changes between Triton versions


def _warps(values: int) -> int:
    """Return as many warps as give a thread 8 values, a 16-byte load in 16 bits; more than 8 wait too long for each other."""
    return min(8, max(1, int(triton.next_power_of_2(values)) // 256))


@triton.jit
def _norm(out, x, weight, x_stride, size, eps, BLOCK: tl.constexpr):
    row, cols = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = cols < size
    read = tl.load(x + row * x_stride + cols, mask=inside, other=0.0)
    scaled = _scaled(read.to(tl.float32), weight, cols, inside, size, eps)
    tl.store(out + row * size + cols, scaled.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _add_norm(out, x, delta, weight, x_stride, delta_stride, size, eps, BLOCK: tl.constexpr):
    row, cols = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    inside = cols < size
    places = x + row * x_stride + cols
    more = tl.load(delta + row * delta_stride + cols, mask=inside, other=0.0)
    added = tl.load(places, mask=inside, other=0.0).to(tl.float32) + more.to(tl.float32)
    rounded = added.to(x.dtype.element_ty)
    tl.store(places, rounded, mask=inside)
    scaled = _scaled(rounded.to(tl.float32), weight, cols, inside, size, eps)
    tl.store(out + row * size + cols, scaled.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _scaled(x, weight, cols, inside, size, eps):
    scale = tl.rsqrt(tl.sum(x * x, 0) / size + eps)
    return x * scale * tl.load(weight + cols, mask=inside, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize_on_alignment=["positions"])
def _rotate(
    projected,
    q,
    keys,
    values,
    q_norm,
    k_norm,
    cos,
    sin,
    positions,
    row_stride,
    keys_token,
    keys_head,
    values_token,
    values_head,
    eps,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    Q_ROWS: tl.constexpr,
    KV_ROWS: tl.constexpr,
    HALF: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    source = projected + row * row_stride
    place = tl.load(positions + row).to(tl.int64) * DIM
    cols = tl.arange(0, HALF)[None, :]
    # Read everything before writing: the compiler moves no read before a write, and each would be waited for separately.
    if HEADS > 0:
        q_heads = tl.arange(0, Q_ROWS)[:, None]
        q_inside = (q_heads < HEADS) & (cols < DIM // 2)
        q_low, q_high = _turned(source + q_heads * DIM + cols, q_norm, cos + place, sin + place, cols, q_inside, eps, DIM)
    if KV_HEADS > 0:
        kv_heads = tl.arange(0, KV_ROWS)[:, None]
        kv_inside = (kv_heads < KV_HEADS) & (cols < DIM // 2)
        source += HEADS * DIM + kv_heads * DIM + cols
        k_low, k_high = _turned(source, k_norm, cos + place, sin + place, cols, kv_inside, eps, DIM)
        v_low = tl.load(source + KV_HEADS * DIM, mask=kv_inside)
        v_high = tl.load(source + KV_HEADS * DIM + DIM // 2, mask=kv_inside)
        keys += row * keys_token + kv_heads * keys_head + cols
        values += row * values_token + kv_heads * values_head + cols
        tl.store(keys, k_low.to(keys.dtype.element_ty), mask=kv_inside)
        tl.store(keys + DIM // 2, k_high.to(keys.dtype.element_ty), mask=kv_inside)
        tl.store(values, v_low, mask=kv_inside)
        tl.store(values + DIM // 2, v_high, mask=kv_inside)
    if HEADS > 0:
        q += (row * HEADS + q_heads) * DIM + cols
        tl.store(q, q_low.to(q.dtype.element_ty), mask=q_inside)
        tl.store(q + DIM // 2, q_high.to(q.dtype.element_ty), mask=q_inside)


@triton.jit
def _turned(source, weight, cos, sin, cols, inside, eps, DIM: tl.constexpr):
    half: tl.constexpr = DIM // 2
    known = cols < half
    low = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(source + half, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt((tl.sum(low * low, 1) + tl.sum(high * high, 1)) / DIM + eps)[:, None]
    low = low * scale * tl.load(weight + cols, mask=known, other=0.0).to(tl.float32)
    high = high * scale * tl.load(weight + half + cols, mask=known, other=0.0).to(tl.float32)
    cos_low, cos_high = tl.load(cos + cols, mask=known, other=0.0), tl.load(cos + half + cols, mask=known, other=0.0)
    sin_low, sin_high = tl.load(sin + cols, mask=known, other=0.0), tl.load(sin + half + cols, mask=known, other=0.0)
    return (
        low * cos_low.to(tl.float32) + high * sin_low.to(tl.float32),
        high * cos_high.to(tl.float32) + low * sin_high.to(tl.float32),
    )


@triton.jit
def _gate(out, gate_up, row_stride, size, BLOCK: tl.constexpr):
    row, cols = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = cols < size
    source = gate_up + row * row_stride + cols
    gate = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(source + size, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * size + cols, (gate / (1.0 + tl.exp(-gate)) * up).to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["n", "lse_stride", "other_stride"], do_not_specialize_on_alignment=["lse", "other_lse", "index"])
def _merge(
    out,
    lse,
    other,
    other_lse,
    index,
    n,
    lse_stride,
    other_stride,
    heads,
    DIM: tl.constexpr,
    COLS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    head, cols = tl.program_id(1), tl.arange(0, COLS)[None, :]
    theirs = (tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)).to(tl.int64)
    known = theirs < n
    mine = theirs if index is None else tl.load(index + theirs, mask=known, other=0).to(tl.int64)
    lse += head * lse_stride + mine
    out += (mine[:, None] * heads + head) * DIM + cols
    other += (theirs[:, None] * heads + head) * DIM + cols
    inside = known[:, None] & (cols < DIM)

    none = float("-inf")
    my_lse = tl.load(lse, mask=known, other=none)
    my_lse = tl.where(my_lse == float("inf"), none, my_lse)
    their_lse = tl.load(other_lse + head * other_stride + theirs, mask=known, other=none)
    their_lse = tl.where(their_lse == float("inf"), none, their_lse)
    largest = tl.maximum(my_lse, their_lse)
    base = tl.where(largest == none, 0.0, largest)
    my_weight, their_weight = tl.exp(my_lse - base), tl.exp(their_lse - base)
    total = my_weight + their_weight
    divisor = tl.where(total == 0.0, 1.0, total)

    my_part = _weighted(tl.load(out, mask=inside, other=0.0), (my_weight / divisor)[:, None])
    their_part = _weighted(tl.load(other, mask=inside, other=0.0), (their_weight / divisor)[:, None])
    tl.debug_barrier()  # several warps may read the same lse: none may write before all have read
    tl.store(lse, tl.where(total == 0.0, none, base + tl.log(divisor)), mask=known)
    tl.store(out, (my_part + their_part).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _weighted(values, weight):
    return tl.where(weight == 0.0, 0.0, values.to(tl.float32) * weight)
