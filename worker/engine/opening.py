"""Open a model: the packed pass if it runs and agrees with transformers' own, otherwise padded generate, or an error."""

import gc
import logging
import time
import traceback

import torch

from guardfleet.domain.verdict import GUARD
from guardfleet.errors import ConfigurationError
from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.decoding.padded import GenerateBackend
from worker.engine.decoding.policy_runner import PolicyBackend
from worker.engine.detector_model import writes
from worker.engine.device import keep_freed_memory, probe
from worker.engine.encoders import opening as encoders
from worker.engine.families.family import Grammar
from worker.engine.forward.network import why_not
from worker.engine.interfaces import (
    Backend,
    DeviceFullError,
    DeviceLostError,
    KernelMissingError,
    Pieces,
    SelfTestError,
    Unjudgeable,
)
from worker.engine.model.loading import LoadedModel, load
from worker.engine.model.source import sentence
from worker.engine.spec import Spec
from worker.engine.verification.policy_check import ask_transformers as ask_about_policies
from worker.engine.verification.policy_check import hold as hold_policies
from worker.engine.verification.reference import ask_transformers
from worker.engine.verification.self_test import hold


def opened(spec: Spec) -> Backend:
    """Open a backend for a model. Raises ConfigurationError, whatever is wrong with it."""
    keep_freed_memory()
    try:
        return _opened(spec) if spec.detector == GUARD or writes(spec) else encoders.opened(spec)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(f"model {spec.model!r} cannot be used: {sentence(error)}") from error


def _opened(spec: Spec) -> Backend:
    model = loaded(spec)
    reason = why_not(model.network)
    if model.family.grammar is not None:
        return _by_policy(spec, model, model.family.grammar, reason)
    if reason is None:
        made = _packed_or_why_not(spec, model)
        if isinstance(made, PackedBackend):
            return made
        reason = made
        del model  # the pass has taken it apart, and a device may not hold it twice
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        model = loaded(spec)
    logging.getLogger(__name__).warning("engine_fallback: padded generate instead of the packed pass, because of %s", reason)
    return _padded(spec, model)


def loaded(spec: Spec) -> LoadedModel:
    """Load the model as configured. Raises ConfigurationError."""
    return load(
        spec.model,
        revision=spec.revision,
        device=spec.device,
        dtype=spec.dtype,
        threads=spec.threads,
        quantized=spec.quantize,
        memory=spec.memory,
        neutralises=spec.role_labels == "neutralise",
        detector=spec.detector,
        neutral=spec.neutral_label,
    )


def _by_policy(spec: Spec, model: LoadedModel, grammar: Grammar, reason: str | None) -> PolicyBackend:
    """Return the pass that judges by policies, checked against transformers' own. Raises ConfigurationError."""
    if reason is None:
        try:
            return _held_by_policy(spec, model, grammar)
        except (SelfTestError, KernelMissingError) as error:
            reason = str(error)
    raise ConfigurationError(
        f"model {spec.model!r} judges by policies, which only the packed pass does, and that cannot run on {model.device} "
        f"because of {reason}: use a CPU, or a GPU that docs/engine.md names."
    )


def _held_by_policy(spec: Spec, model: LoadedModel, grammar: Grammar) -> PolicyBackend:
    reference = ask_about_policies(model)
    made = PolicyBackend(
        model,
        grammar,
        budget_tokens=spec.batch_tokens,
        policy=spec.policy,
        min_tokens=spec.min_tokens,
        reasons=spec.reasons,
        streams=spec.streams,
        is_compiled=spec.compile,
    )
    hold_policies(made, reference)
    return made


def _packed_or_why_not(spec: Spec, model: LoadedModel) -> PackedBackend | str:
    """Return the packed pass, checked against transformers' own, or the reason against it."""
    try:
        return _compiled(spec, model) if spec.compile else _held(spec, model)
    except (ConfigurationError, DeviceLostError):
        raise
    except Exception as error:  # noqa: BLE001 - a missing kernel, or one that refuses this GPU, raises anything
        if isinstance(error, RuntimeError):
            _require_device(model, error)
        traceback.clear_frames(error.__traceback__)  # they hold the model
        if isinstance(error, DeviceFullError):
            return "too little memory for it"
        return str(error) if isinstance(error, SelfTestError) else sentence(error)


def _require_device(model: LoadedModel, error: RuntimeError) -> None:
    try:
        probe(model.device, error)
    except DeviceLostError as lost:
        raise ConfigurationError(f"{model.device} failed while trying the model and cannot be used again: {lost}.") from lost


def _held(spec: Spec, model: LoadedModel, *, is_compiled: bool = False) -> PackedBackend:
    reference = ask_transformers(model)
    made = PackedBackend(model, budget_tokens=spec.batch_tokens, policy=spec.policy, streams=spec.streams, is_compiled=is_compiled)
    hold(made, reference)
    return made


def _compiled(spec: Spec, model: LoadedModel) -> PackedBackend:
    from torch._dynamo.exc import TorchDynamoException  # noqa: PLC0415 - takes a second to import

    started = time.perf_counter()
    try:
        made = _held(spec, model, is_compiled=True)
    except TorchDynamoException as error:
        raise ConfigurationError(
            f"compile: torch.compile failed ({type(error).__name__}): it needs a C++ compiler on CPUs and Triton on GPUs."
        ) from error
    seconds = time.perf_counter() - started
    logging.getLogger(__name__).warning("engine_compiled: setting up took %.1f s, compiling included", seconds)
    return made


def _padded(spec: Spec, model: LoadedModel) -> GenerateBackend:
    """Return the backend that runs wherever torch does, after checking that it does here."""
    made = GenerateBackend(model, budget_tokens=spec.batch_tokens, policy=spec.policy)
    try:
        made.run([row for row in made.prepare(["a"]) if not isinstance(row, Pieces | Unjudgeable)])
    except Exception as error:
        raise ConfigurationError(f"model {spec.model!r} cannot run on {model.device}: {sentence(error)}") from error
    return made
