"""Batches and files."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from api.schemas.base import Answer, Deleted, Page, UnixTime, may_lack, one_of
from api.schemas.verdicts import ActionWord
from guardfleet.domain.states import BATCH_STATUS


class RequestCounts(Answer):
    """Lines as OpenAI counts them."""

    total: int
    completed: int
    failed: int


class BatchError(Answer):
    """A refused line, or why the batch failed."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(Answer):
    """What is wrong with a batch."""

    object: Literal["list"]
    data: list[BatchError]


class Severities(Answer):
    """Texts by severity."""

    safe: int
    controversial: int
    unsafe: int
    error: int
    unrated: int | SkipJsonSchema[None] = may_lack("Texts that the guard was not asked about, if any.")


class Passed(Answer):
    """How many texts a second model or detector was asked about, and how often both agreed."""

    escalate_to: str
    confidence_threshold: float
    audit_fraction: float
    escalated: int
    sampled: int
    agreed: int


class Cascade(Passed):
    """The second model of a batch; `second_model`, `sure` and `sample` are older names."""

    second_model: str
    sure: float
    sample: float


class Batch(Answer):
    """OpenAI's batch, with guardfleet's own counts."""

    id: str
    object: Literal["batch"]
    endpoint: str
    input_file_id: str = Field(description="`inline`: its lines came as the body.")
    completion_window: str
    status: Annotated[str, one_of(BATCH_STATUS.values())]
    created_at: UnixTime
    in_progress_at: UnixTime | None
    expires_at: UnixTime | None
    finalizing_at: UnixTime | None
    completed_at: UnixTime | None
    failed_at: UnixTime | None
    expired_at: UnixTime | None
    cancelling_at: UnixTime | None
    cancelled_at: UnixTime | None
    request_counts: RequestCounts
    errors: BatchErrors | None
    output_file_id: str | None
    error_file_id: str | None
    metadata: dict[str, str] | None
    model: str | None = Field(description="The model that has judged, as `name@revision`; null before the first verdict.")
    models: list[str]
    name: str
    is_demo: bool
    severities: Severities
    actions: dict[ActionWord, int] | None = Field(description="Texts by action of the policy in force; null: none decided.")
    detectors: list[str] | None
    detected: dict[str, dict[str, int]] | None = Field(description="By detector: texts by label or outcome.")
    detector_cascades: dict[str, Passed] | None
    saved: int = Field(description="The older name of `model_runs_saved`.")
    model_runs_saved: int = Field(description="Texts that needed no model: known, duplicate, empty.")
    priority: int
    paused: bool
    texts_per_second: float
    device_seconds: float
    cost: float | None = Field(description="Of the device seconds; null: no price is set.")
    retry_of: str | None
    retries: list[str]
    eta_seconds: float | None
    cascade: Cascade | None
    reason: str | None
    standstill: str | None = may_lack(
        "`retrieveBatch` only: why nobody works on it, and what to do; null: it progresses or has ended."
    )
    callback_secret: str | SkipJsonSchema[None] = may_lack("Shown once, by the request that gave a `callback_url`.")


class BatchPage(Page[Batch]):
    """Batches, newest first."""


class File(Answer):
    """OpenAI's file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: UnixTime
    expires_at: UnixTime | None
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]
    status_details: None


class FilePage(Page[File]):
    """Files."""


class FileDeleted(Deleted):
    """A deleted file."""

    object: Literal["file"]
