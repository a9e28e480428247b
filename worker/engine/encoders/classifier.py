"""Load a classifier from a folder or the hub, checked before it is trusted: every failure is one sentence with cause and fix."""

import functools
import hashlib
import pathlib
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from guardfleet.domain.verdict import GUARD, Model
from guardfleet.errors import ConfigurationError
from worker.engine.encoders.families import OUTLINES, layers_of, positions_of
from worker.engine.encoders.labels import Labels, labels_of
from worker.engine.encoders.tokens import TOKENISING, Limits, TextReader, reader_of
from worker.engine.model import hub
from worker.engine.model.inspection import headers, is_whole
from worker.engine.model.loading import DTYPES, device_for, dtype_for
from worker.engine.model.model_files import DEMO, folder_of, name_of
from worker.engine.model.quantize import quantize_children
from worker.engine.model.source import Source, detach, quiet, translating
from worker.engine.model.vocabulary import require_reading, require_vocabulary
from worker.engine.model.weights import (
    require_complete,
    require_finite,
    require_not_quantized,
    require_safe,
    require_stored,
    require_wide,
    stored_in,
)
from worker.engine.spec import Spec

HEAD = "ForSequenceClassification"
KIND = "classifier of its family"
NO_LIMIT = 1_000_000  # tokenizers say that they have none with a number above it
UNUSED = (
    ".pooler.",
    "position_ids",
    "lm_predictions.",
    "mask_predictions.",
    "cls.",
    "lm_head.",
)  # of pretraining, kept by some files


@dataclass(frozen=True)
class LoadedClassifier:
    """Weights on their device, and what is derived from the model's own tokenizer and labels."""

    network: Any  # transformers' own, in eval mode
    reader: TextReader
    device: torch.device
    identity: Model
    pad: int
    is_multi: bool  # each label is found apart


def is_classifier(config: Any) -> bool:
    """Return whether a config.json says that the model has a classifier's head."""
    return any(str(name).endswith(HEAD) for name in config.architectures or ())


def load(spec: Spec) -> LoadedClassifier:
    """Load what the specification names, in fp32 on its device; `narrow` makes it what it will be. Raises ConfigurationError."""
    quiet()
    if spec.threads:
        torch.set_num_threads(spec.threads)
    name = spec.model
    source = Source.of(name, spec.detector, revision=spec.revision, memory=spec.memory, require_sound=_require_sound)
    source.config(functools.partial(_require_classifier, spec))
    on, pinned = device_for(spec.device, spec.quantize), source.pinned()
    tokenizer, network, report = pinned.read(transformers.AutoModelForSequenceClassification, torch.float32)
    require_complete(name, _without_unused(report), KIND)
    require_finite(name, network)
    labels = _labels(spec, network)
    reader = _reader(spec, tokenizer, network.config)
    detach(network)
    pinned.require_unchanged()
    identity = Model(
        name_of(name, spec.detector),
        _revision(spec, pinned.revision),
        _policy_of(spec, reader),
        is_demo=name == DEMO or bool(getattr(network.config, "guardfleet_demo", False)),
        detector=spec.detector,
        labels=labels.names,
        neutral=labels.neutral,
    )
    return LoadedClassifier(network.eval().to(on), reader, on, identity, tokenizer.pad_token_id or 0, labels.neutral is None)


def config_of(spec: Spec) -> Any:
    """Return the model's configuration, read from its config.json. Raises ConfigurationError."""
    quiet()
    folder = folder_of(spec.model, spec.detector)
    offline = folder is None and hub.is_only_cached(spec.model, spec.revision)
    with translating(spec.model, ""):
        return transformers.AutoConfig.from_pretrained(str(folder or spec.model), revision=spec.revision, local_files_only=offline)


def inspected(spec: Spec) -> tuple[Labels, bool]:
    """Return the labels of a classifier without reading its weights, and whether these are here: else they are on the hub.

    Raises ConfigurationError for what loading would refuse.
    """
    name, config = spec.model, config_of(spec)
    folder = folder_of(name, spec.detector)
    offline = folder is None and hub.is_only_cached(name, spec.revision)
    with translating(name, ""):
        _require_classifier(spec, config)
        files = folder or hub.snapshot_of(name, spec.revision)
        if is_here := folder is not None or is_whole(files):
            _require_sound(name, files)
            _require_fitting(name, config, files)
        where = str(files) if is_here else name
        revision = None if is_here else spec.revision
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, revision=revision, local_files_only=offline)
    _reader(spec, tokenizer, config)
    return labels_of(name, config, config.num_labels, spec.neutral_label), is_here


def narrow(loaded: LoadedClassifier, spec: Spec) -> bool:
    """Give the network the type that the specification asks for, in place, and its layers eight bits if it asks for them.

    Returns whether that changed anything.
    """
    dtype = DTYPES[spec.dtype if spec.dtype != "auto" else dtype_for(loaded.device, spec.quantize)]
    loaded.network.to(dtype)
    if spec.quantize != "none":
        for layer in layers_of(loaded.network):
            for module in list(layer.modules()):
                quantize_children(module, spec.quantize, loaded.device)
    return dtype is not torch.float32 or spec.quantize != "none"


def _require_classifier(spec: Spec, config: Any) -> None:
    """Refuse, by its config.json alone, what is no classifier of a family that is served."""
    served = ", ".join(OUTLINES)
    if not is_classifier(config):
        has = ", ".join(str(name) for name in config.architectures or ()) or "no architecture in its config.json"
        raise ConfigurationError(
            f"model {spec.model!r} cannot judge as the detector {spec.detector!r}: it is no classifier (it has {has}); use a "
            f"*{HEAD} ({served}), or set GUARDFLEET_ENGINE__DETECTOR to {GUARD} for a guard."
        )
    require_not_quantized(spec.model, config)
    if config.model_type not in OUTLINES:
        raise ConfigurationError(f"model {spec.model!r} is of type {config.model_type!r}; classifiers of {served} are served.")


def _require_sound(name: str, folder: pathlib.Path) -> None:
    require_safe(name, folder)
    require_stored(name, folder)
    require_wide(name, folder)
    require_vocabulary(name, folder)


def _require_fitting(name: str, config: Any, folder: pathlib.Path) -> None:
    """Refuse, by their headers, weights that are others than the network has.

    An older library named some weights otherwise, and loading renames them: where both sides lack names, that has to say.
    """
    with torch.device("meta"):
        network = transformers.AutoModelForSequenceClassification.from_config(config)
    expected = {key: tuple(weight.shape) for key, weight in network.state_dict().items()}
    stored = {key: shape for key, (shape, _) in headers(name, stored_in(folder)).items()}
    report = _without_unused({
        "missing_keys": {key for key in expected.keys() - stored.keys() if not key.endswith("position_ids")},
        "unexpected_keys": stored.keys() - expected.keys(),
        "mismatched_keys": {key for key in expected.keys() & stored.keys() if expected[key] != stored[key]},
    })  # fmt: skip
    if not (report["missing_keys"] and report["unexpected_keys"]):
        require_complete(name, report, KIND)


def _without_unused(report: Any) -> dict[str, Any]:
    """Return the library's report without weights of pretraining heads, which no classifier reads."""
    unexpected = [key for key in report.get("unexpected_keys", ()) if not any(part in f".{key}" for part in UNUSED)]
    return {**report, "unexpected_keys": unexpected}


def _labels(spec: Spec, network: Any) -> Labels:
    head = network.classifier
    outputs = (getattr(head, "out_proj", None) or head).weight.shape[0]
    return labels_of(spec.model, network.config, int(outputs), spec.neutral_label)


def _reader(spec: Spec, tokenizer: Any, config: Any) -> TextReader:
    positions = positions_of(config)
    stated = int(min(tokenizer.model_max_length, NO_LIMIT))
    if len(tokenizer) > config.vocab_size:
        raise ConfigurationError(
            f"model {spec.model!r}: its tokenizer has {len(tokenizer)} entries, but its weights {config.vocab_size}."
        )
    require_reading(spec.model, tokenizer, config.vocab_size)
    with translating(spec.model, ""):
        return reader_of(
            spec.model,
            tokenizer,
            lambda frame: Limits.of(min(positions, stated), frame, spec.policy, spec.min_tokens),
        )


def _revision(spec: Spec, found: str) -> str:
    return found if spec.quantize == "none" else f"{spec.quantize}:{found}"  # other numbers, other detections


def _policy_of(spec: Spec, reader: TextReader) -> str:
    """Return a digest of what decides a detection besides the weights: whatever changes a text's rows or their sum changes it."""
    limits = reader.limits
    parts = (TOKENISING, spec.window_rule, limits.size, limits.overlap, limits.policy.most, limits.min_tokens, spec.neutral_label)
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]
