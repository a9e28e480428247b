"""A job as OpenAI's Batch, with guardfleet's own counts beside it; and what a caller may ask of one."""

import datetime as dt
import uuid
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from api.http.fields import WHOLE, Asked, Metadata, ModelName
from api.http.problems import ProblemError
from api.openai import result_files
from guardfleet.domain.options import DEFAULT_PLAN, Plan
from guardfleet.domain.states import JobState
from guardfleet.errors import LineError
from guardfleet.rows.columns import Columns
from guardfleet.store.files import file_label
from guardfleet.store.jobs.control import PRIORITIES
from guardfleet.store.jobs.views import JobView

STATUS = {
    JobState.INGESTING: "validating",
    JobState.RUNNING: "in_progress",
    JobState.COMPLETED: "completed",
    JobState.CANCELLING: "cancelling",
    JobState.CANCELLED: "cancelled",
    JobState.FAILED: "failed",
    JobState.EXPIRED: "expired",
}
UNITS_S = {"m": 60, "h": 3600, "d": 86_400}
Name = Annotated[str, StringConstraints(max_length=200)]
METADATA: TypeAdapter[dict[str, str]] = TypeAdapter(Metadata)
MOST_METADATA = 1000  # characters of up to 12 bytes in a URL, which has at most 64 KiB with all that is asked
Column = Annotated[str, StringConstraints(min_length=1, max_length=200)]
AS_JSON = "A JSON object of at most 16 strings"


class BatchOptions(Asked):
    """What may be asked of every batch, beside its texts. All of it is guardfleet's own."""

    model_config = ConfigDict(extra="forbid")
    name: Name = Field("batch", description="What you call it.")
    callback_url: Annotated[str, StringConstraints(max_length=2000)] | None = Field(None, description="Told when the batch ends.")
    interactive: bool = Field(False, description="Before all bulk batches: for few texts that somebody waits for.")
    strict: bool = Field(False, description="Nothing is judged before all lines are taken; one that is unusable fails the batch.")
    model: ModelName | None = Field(None, description="The only model that may judge it.")
    second_model: ModelName | None = Field(None, description="Judges again what the first is unsure of.")
    sure: float = Field(DEFAULT_PLAN.sure, gt=0, le=1, description="Probability from which on the first model is sure.")
    sample: float = Field(DEFAULT_PLAN.sample, ge=0, le=1, description="Share of the others that the second is asked too.")
    long_texts: Literal["windows", "head", "tail", "ends"] | None = Field(None, description="What of a long text is judged.")
    priority: Annotated[int, Field(ge=PRIORITIES.start, lt=PRIORITIES.stop), WHOLE] = Field(
        0, description="Among your batches; higher first."
    )
    reuse: bool = Field(True, description="Verdicts of your other batches may serve it.")
    purge_hours: float | None = Field(None, ge=0, le=8760, description="Texts are deleted so long after it ended.")

    @property
    def plan(self) -> Plan:
        """Who is to judge; raises RejectedError for an impossible one."""
        return Plan(self.model, self.second_model, self.sure, self.sample, self.long_texts).check()


class LineOptions(BatchOptions):
    """What may be asked of a batch whose lines are the body, and so in the URL."""

    metadata: Annotated[str, StringConstraints(max_length=MOST_METADATA)] | None = Field(None, description=AS_JSON)
    webhook_metadata: Annotated[str, StringConstraints(max_length=MOST_METADATA)] | None = Field(
        None, description=f"Instead of `metadata` in webhooks: {AS_JSON}"
    )

    text_column: Column | None = Field(None, description="The member of a line that holds its text, if not text.")
    id_column: Column | None = Field(None, description="The one that holds its id, if not id.")
    metadata_columns: Annotated[str, StringConstraints(min_length=1, max_length=MOST_METADATA)] | None = Field(
        None, description="Passed through as metadata: all others (the default), none, or a,b,c."
    )

    allow_empty: bool = Field(False, description="A body without a line is no error.")

    @property
    def columns(self) -> Columns:
        """Where the lines have what counts."""
        return Columns.of(self.text_column, self.id_column, self.metadata_columns)

    @staticmethod
    def parsed(value: str | None, name: str) -> dict[str, str] | None:
        """One of the two as what it stands for; ProblemError 400 where it is none."""
        try:
            return None if value is None else METADATA.validate_json(value, strict=True)
        except ValidationError as error:
            raise ProblemError(400, "invalid_metadata", f"{AS_JSON}: {error.errors()[0]['msg']}.", param=name) from None


class Expiry(Asked):
    """After how long OpenAI would delete the files of results."""

    model_config = ConfigDict(extra="forbid", strict=True)
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000), WHOLE]


class BatchRequest(BatchOptions):
    """A batch of an uploaded file, as the openai SDK asks for one."""

    model_config = ConfigDict(extra="forbid", strict=True)
    input_file_id: Annotated[str, StringConstraints(max_length=100)]
    endpoint: Literal["/v1/moderations", "/v1/chat/completions"] = Field(description="What its lines are requests to.")
    completion_window: Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,3}[mhd]$")] = Field(
        "24h", description="After so long it expires: minutes, hours or days."
    )
    output_expires_after: Expiry | None = Field(
        None, description="Taken, without effect: results are kept as long as verdicts. `guardfleet-ignored` says so."
    )
    metadata: Metadata | None = None
    webhook_metadata: Metadata | None = Field(None, description="Instead of `metadata` in webhooks.")

    @property
    def window_s(self) -> float:
        """Seconds until it expires."""
        return float(int(self.completion_window[:-1]) * UNITS_S[self.completion_window[-1]])


def batch_label(public_id: uuid.UUID) -> str:
    """A job's name as a batch."""
    return f"batch_{public_id.hex}"


def batch_object(job: JobView, refused: Iterable[LineError] = ()) -> dict[str, Any]:
    """The job; `refused` are lines to name in `errors`."""
    errors = [{"code": e.code, "message": e.detail, "param": None, "line": e.line} for e in refused]
    if job.state is JobState.FAILED and not errors:
        errors = [{"code": "failed", "message": job.reason or "the input could not be taken in.", "param": None, "line": None}]
    ended = _unix(job.finished_at)
    return {
        "id": batch_label(job.public_id),
        "object": "batch",
        "endpoint": job.endpoint,
        "input_file_id": file_label(job.input_file_id) if job.input_file_id else "inline",
        "completion_window": job.completion_window,
        "status": STATUS[job.state],
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
        "saved": job.saved,
        "priority": job.priority,
        "paused": job.is_paused,
        "texts_per_second": round(job.texts_per_s, 1),
        "eta_seconds": None if job.eta_s is None else round(job.eta_s, 1),
        "cascade": None
        if job.second_model is None
        else {
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
