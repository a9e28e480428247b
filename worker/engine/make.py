"""The engine that a configuration asks for."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from worker.engine.batching import BatchingEngine
from worker.engine.contract import Backend, BatchReport
from worker.engine.instant import InstantBackend


def make_backend(
    kind: str,
    *,
    model: str,
    revision: str | None,
    device: str,
    dtype: str,
    threads: int,
    batch_tokens: int,
    max_text_tokens: int,
    instant_ms_per_batch: float,
) -> Backend:
    """`instant`, or the model; raises ConfigurationError. torch is imported only where a model is asked for."""
    if kind == "instant":
        return InstantBackend(ms_per_batch=instant_ms_per_batch, max_tokens=max_text_tokens)
    with ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
        # A thread that has run OpenMP keeps a team of workers, and two teams on the cores of one make both of them sleep between
        # loops (measured: a sixth of the speed). So models are loaded by a thread that ends, and run by the engine's alone.
        return pool.submit(_load, model, revision, device, dtype, threads, batch_tokens, max_text_tokens).result()


def _load(
    model: str, revision: str | None, device: str, dtype: str, threads: int, batch_tokens: int, max_text_tokens: int
) -> Backend:
    from worker.engine.device import keep_freed_memory  # noqa: PLC0415
    from worker.engine.generate import GenerateBackend  # noqa: PLC0415
    from worker.engine.loading import load  # noqa: PLC0415
    from worker.engine.network import why_not  # noqa: PLC0415
    from worker.engine.packed import PackedBackend, SelfTestError  # noqa: PLC0415

    keep_freed_memory()
    loaded = load(model, revision=revision, device=device, dtype=dtype, threads=threads)
    reason = why_not(loaded.network)
    if reason is None:
        try:
            return PackedBackend(loaded, budget_tokens=batch_tokens, max_text_tokens=max_text_tokens)
        except SelfTestError as error:
            reason = str(error)
            loaded = load(model, revision=revision, device=device, dtype=dtype, threads=threads)
    logging.getLogger(__name__).warning("engine_fallback: padded generate instead of the packed pass, for %s", reason)
    return GenerateBackend(loaded, budget_tokens=batch_tokens, max_text_tokens=max_text_tokens)


def make_engine(backend: Backend, *, on_batch: Callable[[BatchReport], None], on_fatal: Callable[[str], None]) -> BatchingEngine:
    """An engine over the backend, not started."""
    return BatchingEngine(backend, on_batch=on_batch, on_fatal=on_fatal)
