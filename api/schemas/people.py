"""What people say and ask for: labels, samples, reviews, erasures, holds, and the audit trail."""

from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas.base import Actor, Answer, CodedReason, IsoTime, Page, UnixTime, one_of
from api.schemas.verdicts import ActionWord, CategoryWord, Decision, Probabilities, SeverityWord
from guardfleet.domain.actions import ACTIONS
from guardfleet.jobs.labelling import SOURCES


class LabelRefusal(CodedReason):
    """A label that was not stored."""

    index: int


class LabelReport(Answer):
    """What became of labels."""

    object: Literal["label_report"]
    new: int
    known: int
    refused: list[LabelRefusal]


class Label(Answer):
    """What somebody said of a text."""

    object: Literal["label"]
    id: str
    batch_id: str
    seq: int
    source: Annotated[str, one_of(SOURCES)]
    author: str
    label: SeverityWord
    categories: list[CategoryWord]
    sample_id: str | None
    inclusion_probability: float | None
    created_at: IsoTime


class LabelPage(Page[Label]):
    """Labels, in the order in which they were stored."""


class Sample(Answer):
    """A sample of a batch's texts, to be labelled."""

    id: str
    object: Literal["sample"]
    batch_id: str
    n: int
    by: list[str]
    slice: str | None
    population: int
    texts: int
    seed: int
    created_at: UnixTime


class SaidOfText(Answer):
    """What somebody who labels a text is told of its verdict."""

    severity: SeverityWord
    categories: list[CategoryWord]
    probabilities: Probabilities | None
    error: str | None
    action: ActionWord | None


class SampledText(Answer):
    """A text of a sample."""

    sample_id: str
    batch_id: str
    seq: int
    row_id: str | None
    verdict: SaidOfText
    inclusion_probability: float
    stratum: str | None


class SamplePage(Sample):
    """A sample, and a page of its texts in random order."""

    data: list[SampledText]
    has_more: bool
    next: int


class Review(Answer):
    """A text that waits for a person."""

    object: Literal["review"]
    id: str
    batch_id: str
    seq: int
    row_id: str | None
    verdict: SaidOfText
    decision: Decision | None
    done_at: IsoTime


class ReviewPage(Page[Review]):
    """Texts that wait, oldest first."""


class ErasureTarget(Answer):
    """A target, by its digest alone."""

    kind: str
    digest: str


class ErasureCounts(Answer):
    """What an erasure met."""

    texts: int
    verdicts: int
    blobs: int
    provisional: int
    refusals: int
    beside: int
    requests: int
    files: int
    jobs: int
    held: int
    unread: int


class Erasure(Answer):
    """The receipt of an erasure; nothing that was asked for is in it."""

    object: Literal["erasure"]
    id: str
    created_at: IsoTime
    finished_at: IsoTime | None
    rewritten_at: IsoTime | None
    complete: bool
    actor: Actor
    targets: list[ErasureTarget]
    key_id: str = Field(description="The key of the digests.")
    job: str | None
    waiting_for_jobs: int
    waiting_for_files: int
    counts: ErasureCounts


class ErasurePage(Page[Erasure]):
    """Receipts, newest first."""


class WouldErase(Answer):
    """What an erasure would meet."""

    texts: int
    refusals: int
    held: int
    batches: int
    files: int
    unread: int


class ErasureDryRun(Answer):
    """What an erasure would meet; nothing was erased."""

    object: Literal["erasure.dry_run"]
    counts: WouldErase


class LegalHold(Answer):
    """A hold: what it is on may not be erased."""

    object: Literal["hold"]
    id: str
    created_at: IsoTime
    released_at: IsoTime | None
    actor: Actor
    kind: str
    job: str | None
    reason: str
    jobs: int


class LegalHoldPage(Page[LegalHold]):
    """Holds, newest first."""


class AuditSubject(Answer):
    """What something was done to."""

    type: str
    id: str | None


class AuditEvent(Answer):
    """Something that was done."""

    object: Literal["audit_event"]
    id: str
    at: IsoTime
    created_at: UnixTime
    actor: Actor
    action: Annotated[str, one_of(ACTIONS)]
    subject: AuditSubject
    request_id: str | None
    detail: dict[str, Any] = Field(description="What differs by action: docs/audit.md.")


class AuditPage(Page[AuditEvent]):
    """Actions, newest first."""
