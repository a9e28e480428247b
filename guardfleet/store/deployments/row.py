"""A deployment as it is asked for, stored and followed."""

import datetime as dt
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from guardfleet.domain.states import DeploymentState

COLUMNS = """id, detector, model, revision, found, name, state, share, canary_texts, min_agreement, alone, golden_accuracy,
             golden_texts, golden_right, reason, actor, created_at, changed_at, activated_at, compared, agreed, live_errors, errors,
             live_s, candidate_s, skipped"""
SELECT = f"select {COLUMNS} from deployment"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One row of `deployment`, without its labelled rows. `label` is how it is named everywhere."""

    id: int
    detector: str
    model: str
    revision: str | None
    found: str | None
    name: str | None
    state: int
    share: float
    canary_texts: int
    min_agreement: float
    alone: bool
    golden_accuracy: float
    golden_texts: int
    golden_right: int | None
    reason: str | None
    actor: str
    created_at: dt.datetime
    changed_at: dt.datetime
    activated_at: dt.datetime | None
    compared: int
    agreed: int
    live_errors: int
    errors: int
    live_s: float
    candidate_s: float
    skipped: int

    @property
    def label(self) -> str:
        """Its public id."""
        return f"deployment_{self.id}"

    @property
    def told(self) -> DeploymentState:
        """Its state."""
        return DeploymentState(self.state)

    @property
    def version(self) -> str:
        """The model as verdicts name it, if a worker has loaded it; otherwise as it was asked for."""
        name, revision = self.name or self.model, self.found or self.revision
        return f"{name}@{revision[:12]}" if revision else name


class Standing(NamedTuple):
    """What a detector's workers are to do: serve the active one, and take up the candidate; as far as there are any."""

    active: Deployment | None = None
    candidate: Deployment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What somebody wants served, tried or compared.

    `golden`: labelled rows as JSON, [content, is_unsafe] each; of another detector than the guard [content, {label: has it}].
    """

    detector: str
    model: str
    revision: str | None = None
    state: DeploymentState
    share: float = 0.0
    canary_texts: int = 0
    min_agreement: float = 0.0
    alone: bool = False
    golden: list[Any] = field(default_factory=list)
    golden_accuracy: float = 0.0
