"""Labels, samples to be labelled, and the texts that wait for a person."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import ConfigDict, Field, StringConstraints

from api.body.duplicate_members import unambiguous
from api.context import AppContext, BatchesReader, BatchesWriter, Context
from api.http.fields import Asked
from api.http.header_parameters import IDEMPOTENCY_KEY, reads
from api.http.idempotency import Once
from api.http.pages import page_object
from api.http.problems import ProblemError
from api.http.threads import beside, in_thread
from api.schemas.base import answer
from api.schemas.people import LabelPage, LabelReport, ReviewPage, Sample, SamplePage
from guardfleet.domain import ids
from guardfleet.domain.designs import DESIGNS, MOST_SEED
from guardfleet.domain.labels import MOST_AUTHOR
from guardfleet.domain.options import WHOLE
from guardfleet.errors import RejectedError
from guardfleet.jobs import labelling, review, sampling
from guardfleet.jobs.labelling import AT_ONCE, SOURCES, Defaults
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.labels import labels, samples

router = APIRouter(tags=["labels"], dependencies=[Depends(unambiguous)])

MAX_PAGE = 1000
Word = Annotated[str, StringConstraints(max_length=200)]
Batch = Annotated[str | None, Query(max_length=100, description="Only texts of this batch.")]


class GivenLabel(Asked):
    """What somebody says of a text: `label` is safe, controversial or unsafe. Its text is named by `seq` or by your own id."""

    model_config = ConfigDict(extra="forbid", strict=True)
    batch_id: Word
    seq: Annotated[int, WHOLE] | None = None
    row_id: Annotated[str, StringConstraints(max_length=2000)] | None = None
    label: Word
    categories: Annotated[list[Word], Field(max_length=20)] = Field(default_factory=list)
    source: Annotated[str, Field(description=f"Whose word it is: {', '.join(SOURCES)}.", max_length=50)] = "reviewer"
    author: Annotated[str, StringConstraints(max_length=2 * MOST_AUTHOR)]
    sample_id: Annotated[Word | None, Field(description="The sample that asked for it; by default the newest with the text.")] = (
        None
    )


class GivenLabels(Asked):
    """Labels to store."""

    model_config = ConfigDict(extra="forbid", strict=True)
    labels: Annotated[list[GivenLabel], Field(min_length=1, max_length=AT_ONCE)]


class NewSample(Asked):
    """How to draw: `n` texts are shared by the designs of `by`; `slice` is a key of the texts' metadata."""

    model_config = ConfigDict(extra="forbid", strict=True)
    n: Annotated[int, Field(ge=1, le=sampling.MOST_TEXTS), WHOLE] = 500
    by: Annotated[list[Word], Field(max_length=len(DESIGNS), description=f"Of {', '.join(DESIGNS)}.")] = Field(
        default_factory=lambda: ["random"]
    )
    slice: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    seed: Annotated[int, Field(ge=0, le=MOST_SEED, description="Draws the same texts again."), WHOLE] | None = None


@router.post("/v1/labels", operation_id="createLabels", responses=answer(LabelReport))
async def create(given: GivenLabels, context: AppContext, caller: BatchesWriter) -> dict[str, Any]:
    """Store labels. Each is new, known from an earlier request, or refused with its index; sent again, none is stored twice."""
    asked = [labelling.read(one.model_dump(), Defaults()) for one in given.labels]
    taken = await in_thread(labelling.store, context.db, caller.tenant_id, asked)
    refused = [{"index": at, "code": one.code, "detail": one.detail} for at, one in taken.refused.items()]
    return {"object": "label_report", "new": taken.new, "known": taken.known, "refused": refused}


@router.get("/v1/labels", operation_id="listLabels", responses=answer(LabelPage))
async def listing(
    context: AppContext,
    caller: BatchesReader,
    batch_id: Batch = None,
    after: Annotated[str | None, Query(max_length=100, description="`last_id` of the previous page.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> dict[str, Any]:
    """List labels in the order in which they were stored."""
    place = 0 if after is None else _number(after)
    job = None if batch_id is None else (await _job(context, batch_id, caller.tenant_id)).id
    found = await in_thread(labels.page, context.db, caller.tenant_id, job_id=job, after=place, limit=limit + 1)
    return page_object([{"object": "label", **one.as_dict()} for one in found[:limit]], has_more=len(found) > limit)


@router.post(
    "/v1/batches/{batch_id}/samples", operation_id="drawSample", responses=answer(Sample), openapi_extra=reads(IDEMPOTENCY_KEY)
)
async def draw(asked: NewSample, request: Request, batch_id: str, context: AppContext, caller: BatchesWriter) -> dict[str, Any]:
    """Draw texts of an ended batch to be labelled, with known probabilities, so that estimates from their labels are unbiased."""
    async with Once.of(request, context.db, caller, request.url.query.encode() + await request.body()) as once:
        if once.earlier is not None:
            return (await in_thread(samples.get, context.db, ids.SAMPLE.parse(once.earlier), tenant_id=caller.tenant_id)).as_dict()
        job = await _job(context, batch_id, caller.tenant_id)
        if not job.state.is_final:
            detail = "the batch has not ended: draw a sample once it has."
            raise ProblemError(409, "batch_not_ended", detail, headers={"x-should-retry": "false"})
        plan = sampling.plan_of(asked.n, asked.by, slice_key=asked.slice, seed=asked.seed)
        record = once.recording()
        made = await beside(
            context.body_threads,
            sampling.draw,
            context.db,
            job,
            plan,
            slice_key=asked.slice,
            also=lambda connection, public_id: record(connection, ids.SAMPLE.of(public_id)),
        )
        return made.as_dict()


@router.get("/v1/samples/{sample_id}", operation_id="retrieveSample", responses=answer(SamplePage))
async def retrieve(
    sample_id: str,
    context: AppContext,
    caller: BatchesReader,
    after: Annotated[int, Query(ge=-1, le=2**31 - 1, description="The `next` of the previous page.")] = -1,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> dict[str, Any]:
    """Return a sample and its texts, in random order: whoever labels only the first of them has labelled a sample too."""

    def page() -> dict[str, Any]:
        sample = samples.get(context.db, ids.SAMPLE.parse(sample_id), tenant_id=caller.tenant_id)
        job = views.get(context.db, sample.job_public_id, tenant_id=caller.tenant_id)
        found = samples.page(context.db, sample, after=after, limit=limit + 1)
        shown = found[:limit]
        data = list(sampling.rows(context.db, sample, job, shown))
        return {**sample.as_dict(), "data": data, "has_more": len(found) > limit, "next": shown[-1].ord if shown else after}

    return await in_thread(page)


@router.get("/v1/reviews", operation_id="listReviews", responses=answer(ReviewPage))
async def reviews(
    context: AppContext,
    caller: BatchesReader,
    batch_id: Batch = None,
    after: Annotated[str | None, Query(max_length=100, description="`last_id` of the previous page.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> dict[str, Any]:
    """List texts that the policy wants a person to look at, oldest first. A label of a review takes a text out."""
    job = None if batch_id is None else (await _job(context, batch_id, caller.tenant_id)).id
    try:
        found = await in_thread(review.page, context.db, caller.tenant_id, job_id=job, after=after, limit=limit + 1)
    except RejectedError as error:
        raise ProblemError(400, "invalid_cursor", str(error), param="after") from None
    return page_object([{"object": "review", **one} for one in found[:limit]], has_more=len(found) > limit)


async def _job(context: Context, batch_id: str, tenant_id: int) -> JobView:
    return await in_thread(views.get, context.db, ids.JOB.parse(batch_id), tenant_id=tenant_id)


def _number(label: str) -> int:
    digits = label.removeprefix("label_")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 19):  # noqa: PLR2004
        raise ProblemError(
            400, "invalid_cursor", "after is not the id of a label: take `last_id` of the previous page.", param="after"
        )
    return int(digits)
