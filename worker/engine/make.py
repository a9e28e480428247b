"""The engine that a configuration asks for."""

import functools
import logging
import pathlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from guardfleet.errors import ConfigurationError
from worker.engine.batching import BatchingEngine
from worker.engine.contract import Backend, BatchReport
from worker.engine.folders import DEMO
from worker.engine.instant import NAME, InstantBackend
from worker.windows import Policy


@dataclass(frozen=True)
class Spec:
    """What is to judge: `kind` is `model` or `instant`; the other fields are settings of the same names."""

    kind: str = "model"
    model: str = DEMO
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    streams: int = 0
    quantize: str = "none"
    compile: bool = False
    batch_tokens: int = 0
    policy: Policy = field(default_factory=Policy)
    instant_ms_per_batch: float = 0.0
    role_labels: str = "neutralise"
    memory: pathlib.Path | None = None  # where digests of a model's files are remembered


def make_backend(spec: Spec) -> Backend:
    """`instant`, or the model; raises ConfigurationError. torch is imported only where a model is asked for."""
    if spec.kind == "instant":
        name = NAME if spec.model == DEMO else spec.model
        return InstantBackend(name=name, ms_per_batch=spec.instant_ms_per_batch, policy=spec.policy)
    with ThreadPoolExecutor(1, thread_name_prefix="load") as pool:
        # A thread that has run OpenMP keeps a team of workers, and two teams on the cores of one make both of them sleep between
        # loops (measured: a sixth of the speed). So models are loaded by a thread that ends, and run by the engine's alone.
        return pool.submit(_load, spec).result()


def _load(spec: Spec) -> Backend:
    from worker.engine.device import keep_freed_memory  # noqa: PLC0415
    from worker.engine.generate import GenerateBackend  # noqa: PLC0415
    from worker.engine.loading import LoadedModel, load  # noqa: PLC0415
    from worker.engine.network import why_not  # noqa: PLC0415
    from worker.engine.packed import PackedBackend, SelfTestError  # noqa: PLC0415

    def packed(model: LoadedModel) -> PackedBackend:
        backend_of = functools.partial(
            PackedBackend, model, budget_tokens=spec.batch_tokens, policy=spec.policy, streams=spec.streams
        )
        if not spec.compile:
            return backend_of()
        from torch._dynamo.exc import TorchDynamoException  # noqa: PLC0415 - a second to import

        started = time.perf_counter()
        try:
            backend = backend_of(is_compiled=True)
        except TorchDynamoException as error:
            raise ConfigurationError(
                f"compile: torch.compile gives up ({type(error).__name__}): it needs a C++ compiler on CPUs and Triton on GPUs."
            ) from error
        log.warning("engine_compiled: setting up took %.1f s, compiling included", time.perf_counter() - started)
        return backend

    def loaded() -> LoadedModel:
        return load(
            spec.model,
            revision=spec.revision,
            device=spec.device,
            dtype=spec.dtype,
            threads=spec.threads,
            quantized=spec.quantize,
            memory=spec.memory,
            neutralises=spec.role_labels == "neutralise",
        )

    log = logging.getLogger(__name__)
    keep_freed_memory()
    model = loaded()
    reason = why_not(model.network)
    if reason is None:
        try:
            return packed(model)
        except SelfTestError as error:
            reason, model = str(error), loaded()
    log.warning("engine_fallback: padded generate instead of the packed pass, for %s", reason)
    return GenerateBackend(model, budget_tokens=spec.batch_tokens, policy=spec.policy)


def make_engine(backend: Backend, *, on_batch: Callable[[BatchReport], None], on_fatal: Callable[[str], None]) -> BatchingEngine:
    """An engine over the backend, not started."""
    return BatchingEngine(backend, on_batch=on_batch, on_fatal=on_fatal)
