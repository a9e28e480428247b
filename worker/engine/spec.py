"""What to build an engine from."""

import pathlib
from dataclasses import dataclass, field

from guardfleet.domain.verdict import GUARD
from worker.engine.model.model_files import DEMO
from worker.engine.prompting.windows import Policy


@dataclass(frozen=True)
class Spec:
    """The engine to build: `kind` is `model` or `instant`; the other fields are settings of the same names."""

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
    detector: str = GUARD
    neutral_label: str = ""
    window_rule: str = "max"
    min_tokens: int = 0
    reasons: bool = False  # ask a detector's model for its own words on why
