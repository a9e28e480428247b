"""One long row among many short ones costs a further pass its own keys, not a rectangle as wide as it is."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from worker.engine.forward.attention import Workspace
from worker.engine.forward.geometry import Prefix
from worker.engine.forward.tree import Tree
from worker.engine.forward.tree_attention import TreeAttention
from worker.engine.model.shape import Shape

HEADS, DIM, PREFIX = 2, 128, 201  # of what is held and what is allowed, each is as many times as much in a model with more
TREE = Tree.chain(range(16))


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that is made, views apart."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, tuple | list) else [out]:
            if isinstance(made, torch.Tensor) and made._base is None:
                self.bytes = max(self.bytes, made.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("lengths", [[120] * 380 + [8000], [160] * 380, [8000]])
def test_no_tensor_is_larger_than_twice_what_the_rows_keep(lengths: list[int]) -> None:
    workspace = Workspace(Shape(1, 2 * HEADS, HEADS, DIM, 64, 64, 100), torch.device("cpu"), torch.bfloat16)
    workspace.fit(len(lengths) * 17)
    one = torch.zeros(1, 2, HEADS, 1, DIM, dtype=torch.bfloat16)
    prefix = Prefix((0,) * PREFIX, one.expand(1, 2, HEADS, PREFIX, DIM))
    contexts = [one.expand(1, 2, HEADS, n, DIM) for n in lengths]
    nodes = len(lengths) * 17
    q = torch.zeros(nodes, 2 * HEADS, DIM, dtype=torch.bfloat16)
    kept = sum(lengths) * 2 * HEADS * DIM * 2
    with torch.inference_mode(), Largest() as largest:
        attention = TreeAttention(workspace, [prefix] * len(lengths), contexts, [TREE] * len(lengths))
        attention.ask(0, q)
        attention.mix(0, reads_only=False)
    of_queries = nodes * 2 * HEADS * max(DIM, PREFIX) * 4  # the nodes' own, in fp32, and on a CPU their scores for the prefix
    print(f"{len(lengths)} rows, {sum(lengths):,} tokens: {largest.bytes / 1e6:.0f} MB at most, kept {kept / 1e6:.0f} MB")  # noqa: T201
    assert largest.bytes <= max(2 * kept, of_queries)


def test_contexts_that_are_laid_out_layer_by_layer_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a large model are, for as many layers at a time as fit."""
    shape = Shape(5, 4, 2, 32, 64, 64, 100)
    dice = torch.Generator().manual_seed(1)
    prefix = Prefix((0,) * 7, torch.randn(5, 2, 2, 7, 32, generator=dice))
    contexts = [torch.randn(5, 2, 2, n, 32, generator=dice) for n in (3, 40, 1)]
    q, k, v = (torch.randn(3 * 17, heads, 32, generator=dice) for heads in (4, 2, 2))

    def mixed() -> list[torch.Tensor]:
        attention = TreeAttention(Workspace(shape, torch.device("cpu"), torch.float32), [prefix] * 3, contexts, [TREE] * 3)
        out = []
        for layer in range(5):
            attention.store(layer, 0, k, v)
            attention.ask(0, q)
            out.append(attention.mix(layer, reads_only=layer == 4).clone())
        return out

    whole = mixed()
    assert not torch.equal(whole[0], whole[1])
    for layers in (1, 2):
        of_token = 2 * 2 * 32 * 4
        monkeypatch.setattr("worker.engine.forward.tree_attention.GATHER_BYTES", layers * 44 * of_token)
        for one, other in zip(whole, mixed(), strict=True):
            torch.testing.assert_close(one, other)
