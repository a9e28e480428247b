"""CUDA graphs without a GPU: torch's operations are recorded as in a graph, and replayed in the same memory without Python."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from worker.engine.forward import varlen

Run = Callable[[], torch.Tensor]
honest = varlen.varlen_by_loop


def again(run: Run) -> Run:
    """Record nothing: return the function itself, which uses the same buffers."""
    return run


class Tape(TorchDispatchMode):
    """Every operation with its arguments: numbers, shapes and addresses as recorded, contents of tensors as they are at replay."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        assert not any(isinstance(leaf, int | float | bool) for leaf in tree_leaves(out)), f"{func}: the host waits for the device"
        self.steps.append((func, args, kwargs or {}, out))
        return out

    def play(self) -> None:
        """Replay every operation; its results overwrite those of the recording."""
        for func, args, kwargs, out in self.steps:
            known = {_place(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
            fresh = func(*args, **kwargs)
            for before, now in zip(tree_leaves(out), tree_leaves(fresh), strict=True):
                if _place(before) not in known:  # otherwise it is a view, or was written in place
                    before.copy_(now)


def _place(tensor: torch.Tensor) -> int:
    """The address of its memory; weights in oneDNN's layout have none, so their identity."""
    return id(tensor) if tensor.is_mkldnn else tensor.untyped_storage().data_ptr()


class Recorder:
    """A `cuda_graphs.Capture` that counts what it records and how often that is replayed."""

    def __init__(self) -> None:
        self.tapes: list[Tape] = []
        self.replays = 0

    def __call__(self, run: Run) -> Run:
        with Tape() as tape:
            out = run()
        self.tapes.append(tape)

        def replay() -> torch.Tensor:
            self.replays += 1
            tape.play()
            return out

        return replay


@functools.cache
def _kernel() -> Callable[..., Any]:
    """The loop as one operation, like CUDA's kernel: the host does not see what it reads from the bounds."""

    @torch.library.custom_op("guardfleet_tests::varlen", mutates_args=())
    def kernel(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        of_q: torch.Tensor,
        of_k: torch.Tensor,
        most_q: int,
        most_k: int,
        causal: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        for bounds, most in ((of_q, most_q), (of_k, most_k)):
            assert int(bounds.diff().min()) >= 0
            assert int(bounds.diff().max()) <= most
        return honest(q, k, v, varlen.Cuts(of_q, most_q), varlen.Cuts(of_k, most_k), causal=causal)

    return kernel


def use_kernel(patch: pytest.MonkeyPatch) -> None:
    """Use the kernel instead of the loop, in which Python reads the bounds."""
    kernel = _kernel()

    def varlen_as_kernel(q: Any, k: Any, v: Any, cut_q: Any, cut_k: Any, *, causal: bool) -> Any:
        return kernel(q, k, v, cut_q.bounds, cut_k.bounds, cut_q.longest, cut_k.longest, causal)

    patch.setattr(varlen, "varlen_by_loop", varlen_as_kernel)
