"""Triton's kernels without a GPU, in a process of their own: Triton decides at import whether it interprets."""

import io
import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from tests.services.patience import patience


class Outcome(NamedTuple):
    """What a function returned, and its arguments afterwards, as copies that share no memory with the originals."""

    result: Any
    args: tuple[Any, ...]


def outcome(function: Callable[..., Any], args: tuple[Any, ...]) -> Outcome:
    """The outcome of a function of this process, on copies as `interpreter` makes them: each view has a full memory of its own."""
    copies = pickle.loads(_copied(args))  # noqa: S301
    return Outcome(function(*copies), copies)


@contextmanager
def interpreter() -> Iterator[Callable[[str, tuple[Any, ...]], Outcome]]:
    """Call functions of `worker.engine.forward.triton_kernels` by name, interpreted."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _prepare) as pool:

        def call(name: str, args: tuple[Any, ...]) -> Outcome:
            before = os.environ.get("TRITON_INTERPRET")
            os.environ["TRITON_INTERPRET"] = "1"  # the process starts at the first call
            try:
                future = pool.submit(_call, name, _copied(args))
            finally:
                os.environ.pop("TRITON_INTERPRET") if before is None else os.environ.update(TRITON_INTERPRET=before)
            return Outcome(*pickle.loads(future.result(patience(120))))  # noqa: S301

        yield call


def _prepare() -> None:
    import numpy as np
    from triton.runtime import interpreter as triton_interpreter

    torch.set_num_threads(1)
    np.seterr(all="ignore")  # on a GPU, exp overflows to infinity silently
    convert = triton_interpreter._convert_float

    def rounding(data: Any, source: Any, target: Any, mode: Any) -> Any:
        """Round bf16 to the nearest, as GPUs do: the interpreter truncates."""
        if (source.name, target.name) != ("fp32", "bf16"):
            return convert(data, source, target, mode)
        return torch.from_numpy(np.array(data, dtype=np.float32)).bfloat16().view(torch.uint16).numpy()

    triton_interpreter._convert_float = rounding


def _call(name: str, args: bytes) -> bytes:
    from worker.engine.forward import triton_kernels

    copies = pickle.loads(args)  # noqa: S301
    return _copied((getattr(triton_kernels, name)(*copies), copies))


def _copied(value: Any) -> bytes:
    """Pickled without multiprocessing's reduction of tensors, which shares their memory."""
    buffer = io.BytesIO()
    pickle.Pickler(buffer).dump(value)
    return buffer.getvalue()
