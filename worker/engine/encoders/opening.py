"""Open a classifier: the packed pass if it agrees with transformers' own, otherwise padded batches of that, or an error."""

import logging
import traceback
from typing import Any

from guardfleet.errors import ConfigurationError
from worker.engine.device import probe
from worker.engine.encoders.backend import ClassifierBackend
from worker.engine.encoders.classifier import LoadedClassifier, load, narrow
from worker.engine.encoders.families import FROM_PAD, why_not
from worker.engine.encoders.packed import PackedPass, PaddedPass
from worker.engine.encoders.self_test import Probes, Seen, ask, hold, read
from worker.engine.encoders.tokens import TextRow
from worker.engine.interfaces import Backend, DeviceLostError, SelfTestError
from worker.engine.model.source import sentence, translating
from worker.engine.spec import Spec


def opened(spec: Spec) -> Backend:
    """Open a backend for a classifier. Raises ConfigurationError for what cannot be used."""
    loaded = load(spec)
    reason = why_not(loaded.network)
    probes = None
    if reason is None:
        reader = loaded.reader
        probes = ask(loaded.network, reader.frame.before, reader.frame.behind, reader.limits.size)
        found = _held(loaded, probes, probes.exact)  # in fp32 first: fewer bits would hide what it computes wrongly
        reason = found if isinstance(found, str) else None
    is_narrower = narrow(loaded, spec)
    if probes is not None and reason is None:
        if is_narrower:
            found = _held(loaded, probes, read(loaded.network, probes.rows))
        if isinstance(found, PackedPass):
            return _backend(spec, loaded, found)
        reason = found
    if is_padded_by_its_first_token(loaded):
        reason = f"{reason}; pad_token_id in its config.json is the token that begins each text, from which places are not counted"
    logging.getLogger(__name__).warning("engine_fallback: padded batches instead of the packed pass, because of %s", reason)
    padded = _backend(spec, loaded, PaddedPass(loaded.network, loaded.device, loaded.pad))
    with translating(spec.model, ""):
        padded.run([TextRow((*loaded.reader.frame.before, *loaded.reader.frame.behind))])  # shows now whether it runs here at all
    return padded


def is_padded_by_its_first_token(loaded: LoadedClassifier) -> bool:
    """Return whether transformers leaves out a text's first token as it counts places, which the packed pass does not."""
    config = loaded.network.config
    return config.model_type in FROM_PAD and config.pad_token_id in loaded.reader.frame.before


def _backend(spec: Spec, loaded: LoadedClassifier, made: PackedPass | PaddedPass) -> ClassifierBackend:
    return ClassifierBackend(loaded, made, budget_tokens=spec.batch_tokens, streams=spec.streams)


def _held(loaded: LoadedClassifier, probes: Probes, near: Seen) -> PackedPass | str:
    """Return the packed pass of the network as it is, held against transformers' own (`near`), or the reason against it."""
    try:
        packed = PackedPass(loaded.network, loaded.device)
        hold(packed, probes, near)
    except SelfTestError as error:
        return str(error)
    except (ConfigurationError, DeviceLostError):
        raise
    except Exception as error:  # noqa: BLE001 - a missing kernel, or one that refuses this device, raises anything
        _require_device(loaded, error)
        traceback.clear_frames(error.__traceback__)  # they hold the model
        return sentence(error)
    return packed


def _require_device(loaded: LoadedClassifier, error: Any) -> None:
    if isinstance(error, RuntimeError):
        try:
            probe(loaded.device, error)
        except DeviceLostError as lost:
            raise ConfigurationError(f"{loaded.device} failed while trying the model and cannot be used again: {lost}.") from lost
