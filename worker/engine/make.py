"""The engine that a configuration asks for."""

from collections.abc import Callable

from worker.engine.batching import BatchingEngine
from worker.engine.contract import Backend
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
    from worker.engine.generate import GenerateBackend  # noqa: PLC0415
    from worker.engine.loading import load  # noqa: PLC0415

    loaded = load(model, revision=revision, device=device, dtype=dtype, threads=threads)
    return GenerateBackend(loaded, budget_tokens=batch_tokens, max_text_tokens=max_text_tokens)


def make_engine(
    backend: Backend, *, on_batch: Callable[[int, int, float], None], on_fatal: Callable[[str], None]
) -> BatchingEngine:
    """An engine over the backend, not started."""
    return BatchingEngine(backend, on_batch=on_batch, on_fatal=on_fatal)
