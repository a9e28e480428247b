"""Attention over many sequences of any lengths, concatenated in one tensor: torch's kernel, or a loop.

Besides the mixture it returns the log-sum-exp of each query's scores, which is needed to merge mixtures over disjoint keys.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from worker.engine.device import tensor_of
from worker.engine.forward.geometry import Ints
from worker.engine.interfaces import KernelMissingError

LEAST_LONGEST = 2  # if the longest sequence has one query, flash attention assumes that each has one; some have none
QUERY_BLOCK = 128  # of the loop: scores that fit into a core's cache, and none of keys that all of a block come before


class Cuts(NamedTuple):
    """Where sequences begin and end, (sequences + 1,) int32 on the device, and the length of the longest."""

    bounds: torch.Tensor
    longest: int

    @classmethod
    def of(cls, lengths: Ints | Sequence[int], device: torch.device) -> "Cuts":
        """Build from the sequences' lengths; any may be 0."""
        lengths = np.asarray(lengths, np.int64)
        return cls(tensor_of(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), device), int(lengths.max(initial=0)))


class Varlen(Protocol):
    """q (queries, heads, head_dim); k and v (keys, kv_heads, head_dim) -> mixture like q, log-sum-exp (heads, queries) in fp32.

    Sequence i attends with its part of the queries to its part of the keys. `causal`: the last query sees all of its keys, the one
    before it all but the last, and so on: aligned at the bottom right.
    """

    def __call__(  # noqa: D102
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cut_q: Cuts, cut_k: Cuts, *, causal: bool
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


def varlen_for(device: torch.device) -> Varlen:
    """Return the kernel on CUDA, a loop elsewhere. Raises KernelMissingError if this torch has no kernel."""
    return flash_varlen() if device.type == "cuda" else varlen_by_loop


def flash_varlen() -> Varlen:
    """Return torch's own variable-length flash attention with the arguments of this release: its signature keeps changing.

    2.10 says `is_causal` where later releases have a window; from 2.12 on, unequal numbers of heads must be declared. Raises
    KernelMissingError if it is missing, or cannot return the log-sum-exp.
    """
    try:
        from torch.nn.attention import varlen  # noqa: PLC0415 - from 2.10 on
    except ImportError as error:
        raise KernelMissingError(f"variable-length attention, which torch {torch.__version__} does not have") from error
    takes = inspect.signature(varlen.varlen_attn).parameters
    if "return_aux" not in takes:
        raise KernelMissingError(f"the log-sum-exp of variable-length attention, which torch {torch.__version__} does not give")
    always: dict[str, Any] = {"return_aux": varlen.AuxRequest(lse=True)}
    if "enable_gqa" in takes:
        always["enable_gqa"] = True
    causally = {"window_size": (-1, 0)} if "window_size" in takes else {"is_causal": True}
    return functools.partial(_flash, varlen.varlen_attn, always, causally)


def _flash(
    kernel: Any,
    always: dict[str, Any],
    causally: dict[str, Any],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cut_q: Cuts,
    cut_k: Cuts,
    *,
    causal: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    options = always | causally if causal else always
    longest = max(LEAST_LONGEST, cut_q.longest)
    mixed, lse = kernel(q, k, v, cut_q.bounds, cut_k.bounds, longest, cut_k.longest, **options)
    return mixed, lse


def varlen_by_loop(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cut_q: Cuts, cut_k: Cuts, *, causal: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do the same in a loop over the sequences, computing in fp32."""
    out, lse = torch.zeros_like(q), q.new_full((q.shape[1], len(q)), float("-inf"), dtype=torch.float32)
    bounds_q, bounds_k = cut_q.bounds.tolist(), cut_k.bounds.tolist()
    for a, b, c, d in zip(bounds_q, bounds_q[1:], bounds_k, bounds_k[1:], strict=False):
        for start in range(a, b, QUERY_BLOCK):
            stop = min(start + QUERY_BLOCK, b)
            end = d - (b - stop) if causal else d
            if c < end:
                hidden = hidden_keys(stop - start, end - c, q.device) if causal else None
                out[start:stop], lse[:, start:stop] = attend(q[start:stop], k[c:end], v[c:end], hidden)
    return out, lse


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, hidden: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend in one sequence, (..., tokens, heads, head_dim) each; `hidden` (..., queries, keys): -inf where unseen, else 0.

    Returns mixture and log-sum-exp, (..., heads, queries).
    """
    group = q.shape[-2] // k.shape[-2]
    grouped = q.view(*q.shape[:-2], -1, group, q.shape[-1]).movedim(-4, -2).float()  # (..., kv_heads, group, queries, head_dim)
    keys, values = (part.movedim(-3, -2).float()[..., :, None, :, :] for part in (k, v))
    scores = grouped.mul(q.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    if hidden is not None:
        scores += hidden[..., None, None, :, :]
    lse = scores.logsumexp(-1)
    mixed = (scores - lse.nan_to_num(neginf=0)[..., None]).exp_() @ values
    return mixed.movedim(-2, -4).flatten(-3, -2).to(q.dtype), lse.flatten(-3, -2)


def hidden_keys(queries: int, keys: int, device: torch.device) -> torch.Tensor:
    """Return (queries, keys): -inf where a key comes after its query, aligned at the bottom right."""
    return torch.full((queries, keys), float("-inf"), device=device).triu(keys - queries + 1)
