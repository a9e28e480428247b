"""A job as OpenAI's Batch, with guardfleet's own counts; and the options of a batch."""

import datetime as dt
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from api.http.fields import Asked, Metadata
from api.http.problems import ProblemError
from api.openai import result_files
from guardfleet.domain import ids
from guardfleet.domain.options import WHOLE, WINDOW, JobOptions
from guardfleet.domain.states import BATCH_STATUS, JobState
from guardfleet.errors import LineError
from guardfleet.rows.columns import Columns
from guardfleet.store.jobs.views import JobView

METADATA: TypeAdapter[dict[str, str]] = TypeAdapter(Metadata)
MOST_METADATA = 1000  # characters of up to 12 bytes in a URL, which may have at most 64 KiB with all options
Column = Annotated[str, StringConstraints(min_length=1, max_length=200)]
AS_JSON = "A JSON object of at most 16 strings"


class BatchOptions(Asked, JobOptions):
    """The options of every batch, besides its texts. All of them are guardfleet's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    warns: ClassVar[bool] = False  # the header `guardfleet-deprecated` reports old names instead
    name: Annotated[str, StringConstraints(max_length=200)] = Field(default="batch", description="Name of the batch.")

    def asked(self) -> JobOptions:
        """Return the options without HTTP's own."""
        return JobOptions(**{name: getattr(self, name) for name in JobOptions.model_fields})


class LineOptions(BatchOptions):
    """The options of a batch whose lines are the body, so that options are in the URL."""

    metadata: Annotated[str, StringConstraints(max_length=MOST_METADATA)] | None = Field(  # type: ignore[assignment]
        None, description=AS_JSON
    )
    webhook_metadata: Annotated[str, StringConstraints(max_length=MOST_METADATA)] | None = Field(  # type: ignore[assignment]
        None, description=f"Instead of `metadata` in webhooks: {AS_JSON}"
    )

    text_column: Column | None = Field(None, description="Member of a line that holds its text (default: text).")
    id_column: Column | None = Field(None, description="Member of a line that holds its id (default: id).")
    metadata_columns: Annotated[str, StringConstraints(min_length=1, max_length=MOST_METADATA)] | None = Field(
        None, description="Members to keep as metadata: all others (the default), none, or a,b,c."
    )

    allow_empty: bool = Field(False, description="Accept a body without lines.")

    @property
    def columns(self) -> Columns:
        """Which members of the lines hold text, id and metadata."""
        return Columns.of(self.text_column, self.id_column, self.metadata_columns)

    def asked(self) -> JobOptions:
        """Return the options with both kinds of metadata parsed. Raises ProblemError 400 if one is invalid."""
        values = {name: getattr(self, name) for name in JobOptions.model_fields}
        return JobOptions(**values | {name: _parsed(values[name], name) for name in ("metadata", "webhook_metadata")})


def _parsed(value: str | None, name: str) -> dict[str, str] | None:
    try:
        return None if value is None else METADATA.validate_json(value, strict=True)
    except ValidationError as error:
        raise ProblemError(400, "invalid_metadata", f"{AS_JSON}: {error.errors()[0]['msg']}.", param=name) from None


class Expiry(Asked):
    """When OpenAI would delete the result files."""

    model_config = ConfigDict(extra="forbid", strict=True)
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000), WHOLE]


class BatchRequest(BatchOptions):
    """A batch of an uploaded file, as the openai SDK requests it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    input_file_id: Annotated[str, StringConstraints(max_length=100)]
    endpoint: Literal["/v1/moderations", "/v1/chat/completions"] = Field(description="Endpoint that the file's lines are for.")
    completion_window: Annotated[str, StringConstraints(pattern=WINDOW)] = Field(
        "24h", description="Expire the batch after this time: minutes, hours or days."
    )
    output_expires_after: Expiry | None = Field(
        None, description="Accepted without effect: results are kept as long as verdicts. Reported in `guardfleet-ignored`."
    )
    metadata: Metadata | None = None
    webhook_metadata: Metadata | None = Field(None, description="Instead of `metadata` in webhooks.")


def batch_object(job: JobView, refused: Iterable[LineError] = (), *, price: float | None = None) -> dict[str, Any]:
    """Return the batch; `refused` are lines to report in `errors`, `price` is that of a device's hour."""
    errors = [{"code": e.code, "message": e.detail, "param": None, "line": e.line} for e in refused]
    if job.state is JobState.FAILED and not errors:
        errors = [{"code": "failed", "message": job.reason or "the input could not be read.", "param": None, "line": None}]
    ended = _unix(job.finished_at)
    return {
        "id": ids.BATCH.of(job.public_id),
        "object": "batch",
        "endpoint": job.endpoint,
        "input_file_id": ids.FILE.of(job.input_file_id) if job.input_file_id else "inline",
        "completion_window": job.completion_window,
        "status": BATCH_STATUS[job.state],
        "created_at": _unix(job.created_at),
        "in_progress_at": _unix(job.started_at or job.sealed_at),
        "expires_at": _unix(job.expires_at),
        "finalizing_at": ended if job.state is JobState.COMPLETED else None,
        "completed_at": ended if job.state is JobState.COMPLETED else None,
        "failed_at": ended if job.state is JobState.FAILED else None,
        "expired_at": ended if job.state is JobState.EXPIRED else None,
        "cancelling_at": _unix(job.cancelling_at) if job.ends_as == JobState.CANCELLED else None,
        "cancelled_at": ended if job.state is JobState.CANCELLED else None,
        "request_counts": job.request_counts,
        "errors": {"object": "list", "data": errors} if errors else None,
        **result_files.labels(job),
        "metadata": job.metadata,
        "model": job.model,
        "models": job.models,
        "name": job.name,
        "is_demo": job.is_demo,
        "severities": job.severities,
        "actions": job.actions,
        "detectors": job.detectors,
        "detected": job.detected,
        "detector_cascades": job.cascades or None,
        "saved": job.saved,
        "model_runs_saved": job.saved,
        "priority": job.priority,
        "paused": job.is_paused,
        "texts_per_second": round(job.texts_per_s, 1),
        "device_seconds": round(job.device_s, 3),
        "cost": job.cost(price),
        "retry_of": ids.BATCH.of(job.retry_of) if job.retry_of else None,
        "retries": [ids.BATCH.of(retry) for retry in job.retries],
        "eta_seconds": None if job.eta_s is None else round(job.eta_s, 1),
        "cascade": None
        if job.second_model is None
        else {
            "escalate_to": job.second_model,
            "confidence_threshold": round(job.sure, 6),
            "audit_fraction": round(job.sample, 6),
            "second_model": job.second_model,
            "sure": round(job.sure, 6),
            "sample": round(job.sample, 6),
            "escalated": job.escalated,
            "sampled": job.sampled,
            "agreed": job.agreed,
        },
        "reason": job.reason,
    }


def _unix(moment: dt.datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
