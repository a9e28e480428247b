"""Build the engine that a configuration asks for."""

import gc
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from worker.engine.engine import BatchingEngine
from worker.engine.interfaces import Backend, BatchReport
from worker.engine.model.model_files import DEMO
from worker.engine.spec import Spec
from worker.engine.testing.marked import NAME, InstantBackend

PATIENCE_S = 0.3  # how long a text that somebody waits for may wait for the device


def make_backend(spec: Spec) -> Backend:
    """Build the `instant` backend or the model's. Raises ConfigurationError. Imports torch only for a model."""
    if spec.kind == "instant":
        name = NAME if spec.model == DEMO else spec.model
        return InstantBackend(
            name=name,
            ms_per_batch=spec.instant_ms_per_batch,
            policy=spec.policy,
            revision=spec.revision,
            detector=spec.detector,
            min_tokens=spec.min_tokens,
        )
    with ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
        # A thread that has run OpenMP keeps a team of workers, and two teams on the same cores put each other to sleep between
        # loops (measured: a sixth of the speed). So a thread that ends loads the model, and only the engine's thread runs it.
        return pool.submit(_open, spec).result()


def require_device(spec: Spec) -> None:
    """Raise ConfigurationError early for what loading would refuse: a missing device, or one that cannot compute `quantize`."""
    if spec.kind != "instant":
        from worker.engine.model.loading import device_for  # noqa: PLC0415 - as below

        device_for(spec.device, spec.quantize)


def give_memory_back() -> None:
    """Give back what an engine that was stopped has left on the device, so that another model finds it free."""
    gc.collect()
    torch = sys.modules.get("torch")  # it is loaded if an engine has used it
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _open(spec: Spec) -> Backend:
    from worker.engine.opening import opened  # noqa: PLC0415 - torch and transformers take seconds

    return opened(spec)


def make_engine(backend: Backend, *, on_batch: Callable[[BatchReport], None], on_fatal: Callable[[str], None]) -> BatchingEngine:
    """Build an engine over the backend, not started, as a worker uses it: its interactive lane is always open."""
    return BatchingEngine(backend, on_batch=on_batch, on_fatal=on_fatal, patience_s=PATIENCE_S)
