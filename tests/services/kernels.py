"""Torch's variable-length attention in each of its releases: the signatures, and what the kernel behind them requires."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from worker.engine.forward.varlen import Cuts, varlen_by_loop

Kernel = Callable[..., Any]
SEVEN = ("query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k")  # the first parameters in each release
NO_GPU_FOR_IT = "FlashAttention only supports Ampere GPUs or newer."


class Aux(NamedTuple):
    """Stands for torch's `AuxRequest`."""

    lse: bool = False


def _attend(given: tuple[Any, ...], *, causal: bool, aux: Aux | None) -> Any:
    """Return what flash attention does, and assert what it requires: without keys the log-sum-exp is +inf."""
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


def _kernel(*options: str) -> Kernel:
    """A kernel with these options: causal by a flag or by a window; unequal numbers of heads must be announced if they can be."""

    def varlen_attn(*given: Any, **options_given: Any) -> Any:
        taken = signature.bind(*given, **options_given).arguments
        window = taken.get("window_size", (-1, -1))
        assert window in {(-1, -1), (-1, 0)}
        query, key = given[:2]
        assert "enable_gqa" not in options or taken.get("enable_gqa") or query.shape[1] == key.shape[1]
        causal = taken.get("is_causal", window == (-1, 0))
        return _attend(given, causal=causal, aux=taken.get("return_aux"))

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in SEVEN]
    parameters += [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in options]
    signature = inspect.Signature(parameters)
    vars(varlen_attn)["__signature__"] = signature
    return varlen_attn


def without_aux(
    query: Any, key: Any, value: Any, cu_seq_q: Any, cu_seq_k: Any, max_q: int, max_k: int, is_causal: bool = False
) -> Any:
    """A kernel that does not return its log-sum-exp."""
    raise AssertionError


def refusing(*args: Any, return_aux: Aux | None = None, window_size: tuple[int, int] = (-1, -1)) -> Any:
    """A kernel on a GPU that is too old for it."""
    raise RuntimeError(NO_GPU_FOR_IT)


OF_2_11 = ("return_aux", "scale", "window_size")
RELEASES: dict[str, Kernel] = {
    "2.10": _kernel("is_causal", "return_aux"),
    "2.11": _kernel(*OF_2_11),
    "2.13": _kernel(*OF_2_11, "enable_gqa", "seqused_k", "block_table", "num_splits"),
}
