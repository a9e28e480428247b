"""What a model would say as a detector: its labels and which of them finds nothing, found without reading its weights.

What loading would refuse is refused here in the same sentences. What only weights show (damage inside one, a pass that disagrees
with transformers') is found at load.
"""

from dataclasses import dataclass

from guardfleet.errors import ConfigurationError
from worker.engine.encoders.classifier import config_of, inspected, is_classifier
from worker.engine.families.detector import labels_as
from worker.engine.families.family import Family, family_of
from worker.engine.model import hub, inspection
from worker.engine.model.model_files import folder_of, name_of
from worker.engine.spec import Spec


@dataclass(frozen=True)
class DetectorModel:
    """`kind`: in words. `is_here`: its weights are on this machine, and were looked at."""

    called: str
    kind: str
    labels: tuple[str, ...]
    neutral: str | None
    is_here: bool


def detector_model(spec: Spec) -> DetectorModel:
    """Look at the specification's model, as what opens it does. Raises ConfigurationError for what would be refused."""
    found = _by_policy(spec) if writes(spec) else _classifier(spec)
    if not found.is_here and hub.is_only_cached(spec.model, spec.revision):
        raise ConfigurationError(f"model {spec.model!r} is in the hub's cache only partly, and the hub cannot be reached.")
    return found


def writes(spec: Spec) -> bool:
    """Return whether the model answers in words, as guards do that are given a policy, and is no classifier."""
    config = config_of(spec)
    return config.model_type == "qwen3" and not is_classifier(config)


def _classifier(spec: Spec) -> DetectorModel:
    labels, is_here = inspected(spec)
    return DetectorModel(name_of(spec.model, spec.detector), "a classifier", *labels, is_here)


def _by_policy(spec: Spec) -> DetectorModel:
    is_offline = folder_of(spec.model) is None and hub.is_only_cached(spec.model, spec.revision)
    found = inspection.find(spec.model, spec.revision, is_offline=is_offline)
    tokenizer = inspection.tokenizer_for(found)
    if found.folder is not None:
        inspection.require_loadable(found, tokenizer)
    family = family_of(tokenizer) or Family("qwen3guard")
    labels, neutral = labels_as(spec.model, family, spec.detector, spec.neutral_label)
    return DetectorModel(found.called, f"of the family {family.name}", labels, neutral, found.folder is not None)
