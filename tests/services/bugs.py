"""Bugs that engines like this one have had, planted into the packed CUDA pass to check that the self test finds them."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from worker.engine.decoding.logits import Reads
from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.forward import attention, steps, varlen
from worker.engine.forward.geometry import Prefix, Rows
from worker.engine.forward.tree import Tree

Plant = Callable[[pytest.MonkeyPatch], None]
honest = varlen.varlen_by_loop


def kernel(
    sees: Callable[[torch.Tensor, int, int], torch.Tensor] | None = None, scale: float = 1.0, *, of_causal: bool = True
) -> Plant:
    """Plant a wrong kernel: `sees` changes which keys each query sees, a mask (queries, keys)."""

    def wrong(q: Any, k: Any, v: Any, cut_q: Any, cut_k: Any, *, causal: bool) -> Any:
        if causal != of_causal and sees is not None:
            return honest(q, k, v, cut_q, cut_k, causal=causal)
        out, lse = torch.zeros_like(q), q.new_full((q.shape[1], len(q)), float("-inf"), dtype=torch.float32)
        qs, ks = cut_q.bounds.tolist(), cut_k.bounds.tolist()
        for a, b, c, d in zip(qs, qs[1:], ks, ks[1:], strict=False):
            if a < b and c < d:
                n, m = b - a, d - c
                seen = torch.ones(n, m, dtype=torch.bool)
                seen = seen.tril(m - n) if causal else seen
                seen = seen if sees is None else sees(seen, n, m)
                hidden = torch.zeros(n, m).masked_fill_(~seen, float("-inf"))
                out[a:b], lse[:, a:b] = varlen.attend(q[a:b] * scale, k[c:d], v[c:d], hidden)
        return out, lse

    return lambda patch: patch.setattr(varlen, "varlen_by_loop", wrong)


def _without_own(seen: torch.Tensor, n: int, m: int) -> torch.Tensor:
    out = torch.ones(n, m, dtype=torch.bool).tril(m - n - 1)
    out[:, 0] = True
    return out


def _without_last(seen: torch.Tensor, n: int, m: int) -> torch.Tensor:
    out = seen.clone()
    out[:, -1] = m == 1
    return out


def _patched(owner: Any, name: str, change: Callable[[Any], Any]) -> Plant:
    """Plant a change of a method's result."""
    before = getattr(owner, name)

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(owner, name, functools.wraps(before)(lambda *args, **kwargs: change(before(*args, **kwargs))))

    return plant


def _one_later(positions: Any) -> Any:
    return positions + 1


def _shifted_prefix(patch: pytest.MonkeyPatch) -> None:
    before = PackedBackend._prefix
    patch.setattr(PackedBackend, "_prefix", lambda self, ids: Prefix(ids, before(self, (*ids[1:], ids[0])).kv))


def _step(name: str, instead: Callable[..., Any]) -> Plant:
    """Another step between the products."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        wrong = steps.steps_for(torch.device("cpu"))._replace(**{name: instead})
        for module in ("attention", "fused_network"):
            patch.setattr(f"worker.engine.forward.{module}.steps_for", lambda *_, **__: wrong)

    return plant


def _averaged(out: Any, lse: Any, other: Any, other_lse: Any, index: Any) -> None:
    places = slice(None) if index is None else index
    out[places] = (out[places] + other) / 2


def _swapped_heads(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(varlen, "varlen_by_loop", lambda q, k, v, *cuts, causal: honest(q, k.flip(1), v, *cuts, causal=causal))


def _keys_as_values(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(varlen, "varlen_by_loop", lambda q, k, v, *cuts, causal: honest(q, v, k, *cuts, causal=causal))


def _sees_the_draft(patch: pytest.MonkeyPatch) -> None:
    before = attention.VarlenAttention.__init__

    def made(self: Any, workspace: Any, rows: Rows) -> None:
        skips, rows.skips = rows.skips, np.zeros_like(rows.skips)
        before(self, workspace, rows)
        rows.skips = skips

    patch.setattr(attention.VarlenAttention, "__init__", made)


def _reads(name: str, change: Callable[[Any], Any]) -> Plant:
    """Something read off the table at other places."""
    before = getattr(Reads, name)
    return lambda patch: patch.setattr(Reads, name, lambda self, at: before(self, change(at)))


def _taken_before(patch: pytest.MonkeyPatch) -> None:
    before = attention.Workspace.taken
    patch.setattr(attention.Workspace, "taken", lambda self, tokens: before(self, np.maximum(tokens - 1, 0)))


def _siblings(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tree, "unseen", property(lambda self: np.triu(np.full((len(self.parents),) * 2, -np.inf, np.float32), 1)))


BUGS: dict[str, Plant] = {
    "causal mask aligned top-left": kernel(lambda seen, n, m: torch.ones(n, m, dtype=torch.bool).tril(0)),
    "window of 32 keys": kernel(lambda seen, n, m: seen & ~torch.ones(n, m, dtype=torch.bool).tril(m - n - 32)),
    "sees 1 token of the future": kernel(lambda seen, n, m: torch.ones(n, m, dtype=torch.bool).tril(m - n + 1)),
    "wrong softmax scale": kernel(scale=2.0**-0.5),
    "last key missing": kernel(_without_own),
    "last prefix key missing": kernel(_without_last, of_causal=False),
    "positions off by one behind the prefix": _patched(Rows, "positions", _one_later),
    "a wrong prefix": _shifted_prefix,
    "swapped heads of keys": _swapped_heads,
    "keys and values swapped": _keys_as_values,
    "parts merged without their weights": _step("merge", _averaged),
    "a node sees its siblings": _siblings,
    "the question sees the draft's end": _sees_the_draft,
    "gate and up swapped": _step("gate", lambda gate_up: steps.gate(gate_up.roll(gate_up.shape[-1] // 2, -1))),
    "a norm without its small number": _step("norm", lambda x, weight, eps: steps.norm(x, weight, 1.0)),
    "rotated the other way": _step("rotate", lambda *args: steps.rotate(*args[:4], -args[4], *args[5:])),
    "labels read one token late": _reads("all_labels", lambda at: at + 1),
    "categories read one token early": _reads("all_categories", lambda at: at - 1),
    "every call a close one": _patched(Reads, "gaps", lambda gaps: gaps * 0),
    "a third pass behind other keys": _taken_before,
    "the last norm's sum not kept": _step("add_norm", lambda x, delta, weight, eps: steps.norm(x + delta, weight, eps)),
}
