"""The states of jobs, shards, deliveries and files as conditions of statements, so that no statement names a state by its number.

`{OPEN_JOB}` in an f-string is `state in (0, 1)`, `{OPEN_JOB:j}` the same for alias `j`. The numbers are part of the statement and
not bound as values: otherwise the planner could not see that a partial index fits. A statement sets a state as `{JobState.FAILED}`.
"""

import json
from dataclasses import dataclass
from enum import IntEnum

from guardfleet.domain import ids
from guardfleet.domain.detection import Outcome
from guardfleet.domain.lanes import Lane
from guardfleet.domain.states import DeliveryState, DeploymentState, FileState, JobState, ShardState
from guardfleet.domain.verdict import ERASED, ServedBy, Severity
from guardfleet.rows.payload import ERASED as NOTE_ERASED


@dataclass(frozen=True, slots=True)
class Among:
    """The condition that a column has one of these values."""

    column: str
    values: tuple[IntEnum, ...]

    def __format__(self, alias: str, /) -> str:
        column = f"{alias}.{self.column}" if alias else self.column
        numbers = ", ".join(map(str, self.values))
        return f"{column} in ({numbers})" if len(self.values) > 1 else f"{column} = {numbers}"


def public_id(kind: ids.Kind, column: str = "public_id") -> str:
    """Return the expression for the public id of a row."""
    return f"'{kind.prefix}' || replace({column}::text, '-', '')"


def _state(*values: IntEnum) -> Among:
    return Among("state", values)


INGESTING_JOB = _state(JobState.INGESTING)
RUNNING_JOB = _state(JobState.RUNNING)
COMPLETED_JOB = _state(JobState.COMPLETED)
CANCELLING_JOB = _state(JobState.CANCELLING)
OPEN_JOB = _state(JobState.INGESTING, JobState.RUNNING)  # its texts are being judged
UNENDED_JOB = _state(JobState.INGESTING, JobState.RUNNING, JobState.CANCELLING)
ENDED_JOB = _state(*(state for state in JobState if state.is_final))
GOOD_JOB = _state(JobState.INGESTING, JobState.RUNNING, JobState.COMPLETED)  # submitting the same again returns it

READY_SHARD = _state(ShardState.READY)
LEASED_SHARD = _state(ShardState.LEASED)
DONE_SHARD = _state(ShardState.DONE)
DROPPED_SHARD = _state(ShardState.CANCELLED)
OPEN_SHARD = _state(ShardState.READY, ShardState.LEASED)
INTERACTIVE = Among("lane", (Lane.INTERACTIVE,))

PENDING_DELIVERY = _state(DeliveryState.PENDING)
SENDING_DELIVERY = _state(DeliveryState.SENDING)
EXHAUSTED_DELIVERY = _state(DeliveryState.EXHAUSTED)
OPEN_DELIVERY = _state(DeliveryState.PENDING, DeliveryState.SENDING)
ENDED_DELIVERY = _state(DeliveryState.DELIVERED, DeliveryState.EXHAUSTED)

WHOLE_FILE = _state(FileState.WHOLE)
UPLOADING_FILE = _state(FileState.UPLOADING)
KEPT_FILE = _state(FileState.UPLOADING, FileState.WHOLE)
LEFT_FILE = _state(FileState.DELETED)  # its content may still exist

ACTIVE_DEPLOYMENT = _state(DeploymentState.ACTIVE)
CANDIDATE_DEPLOYMENT = _state(DeploymentState.SHADOW, DeploymentState.CANARY, DeploymentState.ROLLING)
COMPARED_DEPLOYMENT = _state(DeploymentState.SHADOW, DeploymentState.CANARY)
CANARY_DEPLOYMENT = _state(DeploymentState.CANARY)
ROLLING_DEPLOYMENT = _state(DeploymentState.ROLLING)
SUPERSEDED_DEPLOYMENT = _state(DeploymentState.SUPERSEDED)
SERVED_DEPLOYMENT = _state(DeploymentState.CANARY, DeploymentState.ROLLING, DeploymentState.ACTIVE)

REUSABLE_VERDICT = f"served_by = {ServedBy.MODEL} and severity < {Severity.ERROR}"
REUSABLE_DETECTION = f"served_by = {ServedBy.MODEL} and outcome <> {Outcome.ERROR}"
_NOTES = json.dumps({"notes": [NOTE_ERASED]})
ERASED_VERDICT = f"(v.error = '{ERASED}' or v.evidence = '{_NOTES}'::jsonb)"  # its text was erased before, or after it had one
FLAGGED_VERDICT = f"severity >= {Severity.CONTROVERSIAL}"
