"""Torch's variable-length attention as its releases offer it: the signatures, and what the kernel behind them asks for."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from worker.engine.forward.varlen import Cuts, varlen_by_loop

Kernel = Callable[..., Any]
NO_GPU_FOR_IT = "FlashAttention only supports Ampere GPUs or newer."


class Aux(NamedTuple):
    """As torch's `AuxRequest`."""

    lse: bool = False


def _attend(given: tuple[Any, ...], *, causal: bool, aux: Aux | None) -> Any:
    """What flash attention gives, and refuses: no keys have a log-sum-exp of +inf, and one query a sequence is one in each."""
    q, k, v, bounds_q, bounds_k, max_q, max_k = given
    for bounds, longest, tokens in ((bounds_q, max_q, len(q)), (bounds_k, max_k, len(k))):
        assert (bounds.dtype, bounds.is_contiguous()) == (torch.int32, True)
        assert int(bounds[-1]) <= tokens
        assert longest >= int(bounds.diff().max())
    assert {q.stride(-1), k.stride(-1), v.stride(-1)} == {1}
    assert q.shape[1] % k.shape[1] == 0
    if max_q == 1 and q.shape[1] > k.shape[1] and not causal:
        q = q.reshape(len(bounds_q) - 1, *q.shape[1:])  # groups of heads take the queries' places
    mixed, lse = varlen_by_loop(q, k, v, Cuts(bounds_q, max_q), Cuts(bounds_k, max_k), causal=causal)
    return (mixed, lse.masked_fill(lse.isinf(), torch.inf)) if aux and aux.lse else mixed


def of_2_10(
    query: Any,
    key: Any,
    value: Any,
    cu_seq_q: Any,
    cu_seq_k: Any,
    max_q: int,
    max_k: int,
    is_causal: bool = False,
    return_aux: Aux | None = None,
) -> Any:
    """Causal by a flag."""
    return _attend((query, key, value, cu_seq_q, cu_seq_k, max_q, max_k), causal=is_causal, aux=return_aux)


def of_2_11(
    query: Any,
    key: Any,
    value: Any,
    cu_seq_q: Any,
    cu_seq_k: Any,
    max_q: int,
    max_k: int,
    *,
    return_aux: Aux | None = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
) -> Any:
    """Causal by a window."""
    assert window_size in {(-1, -1), (-1, 0)}
    given = (query, key, value, cu_seq_q, cu_seq_k, max_q, max_k)
    return _attend(given, causal=window_size == (-1, 0), aux=return_aux)


def of_2_13(
    query: Any,
    key: Any,
    value: Any,
    cu_seq_q: Any,
    cu_seq_k: Any,
    max_q: int,
    max_k: int,
    *,
    return_aux: Aux | None = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    seqused_k: Any = None,
    block_table: Any = None,
    num_splits: int | None = None,
) -> Any:
    """Unequal numbers of heads are announced."""
    assert enable_gqa or query.shape[1] == key.shape[1]
    return of_2_11(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, return_aux=return_aux, scale=scale, window_size=window_size)


def without_aux(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, is_causal: bool = False
) -> Any:
    """One that keeps its log-sum-exp to itself."""
    raise AssertionError


def refusing(*args: Any, return_aux: Aux | None = None, window_size: tuple[int, int] = (-1, -1)) -> Any:
    """On a GPU that is too old for it."""
    raise RuntimeError(NO_GPU_FOR_IT)


RELEASES: dict[str, Kernel] = {"2.10": of_2_10, "2.11": of_2_11, "2.13": of_2_13}
