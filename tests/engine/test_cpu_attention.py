"""Rows of a batch do not see each other on CPUs: whatever one of them holds, the others' mixtures stay the same to the bit."""

import pytest
import torch

from worker.engine.forward.attention import Workspace
from worker.engine.forward.cpu_attention import KINDS, Kind
from worker.engine.forward.geometry import Prefix, Rows
from worker.engine.model.shape import Shape

SHAPE = Shape(layers=1, heads=4, kv_heads=2, head_dim=32, hidden=64, intermediate=64, vocabulary=64)
LENGTHS = (5, 130, 60, 300, 1)
POISONED = (1, 3)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def mixtures(kind: Kind, dtype: torch.dtype, *, poison: float | None = None) -> list[torch.Tensor]:
    """What each row's tokens get, in a workspace that holds `poison` wherever nothing is written, as do the poisoned rows."""
    dice = torch.Generator().manual_seed(1)
    prefix = Prefix(tuple(range(9)), torch.randn(1, 2, SHAPE.kv_heads, 9, SHAPE.head_dim, generator=dice).to(dtype))
    q, k, v = (
        torch.randn(sum(LENGTHS), heads, SHAPE.head_dim, generator=dice).to(dtype)
        for heads in (SHAPE.heads, SHAPE.kv_heads, SHAPE.kv_heads)
    )
    workspace = Workspace(SHAPE, torch.device("cpu"), dtype)
    workspace.fit(sum(LENGTHS))
    if poison is not None:
        for i in POISONED:
            for numbers in (q, k, v):
                numbers.split(LENGTHS)[i].fill_(poison)
        for room in (workspace.q, workspace.kv, workspace.out):
            room.fill_(poison)
    attention = kind(workspace, Rows(LENGTHS, LENGTHS, [prefix] * len(LENGTHS)))
    attention.store(0, 0, k, v)
    attention.ask(0, q)
    found = attention.mix(0, reads_only=False).view(-1, SHAPE.heads, SHAPE.head_dim)
    return [part.clone() for part in found[: sum(LENGTHS)].split(LENGTHS)]


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_are_none_stay_in_their_row(kind: Kind, dtype: torch.dtype, poison: float) -> None:
    sound, beside = mixtures(kind, dtype), mixtures(kind, dtype, poison=poison)
    for i, (alone, found) in enumerate(zip(sound, beside, strict=True)):
        assert alone.isfinite().all()
        assert i in POISONED or torch.equal(alone, found), i
        assert i not in POISONED or not found.isfinite().any()
