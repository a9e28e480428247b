"""Retries: the failed texts of an ended batch, judged again as a new batch."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from api.context import AppContext, BatchesWriter, Context
from api.http.header_parameters import IDEMPOTENCY_KEY, reads
from api.http.idempotency import Once
from api.http.problems import ProblemError
from api.http.threads import beside, in_thread
from api.routes.batches import MADE, made
from guardfleet.domain import ids
from guardfleet.domain.states import JobState
from guardfleet.domain.verdict import ERROR_CODES
from guardfleet.jobs import retry as use_case
from guardfleet.store.jobs import views
from guardfleet.store.jobs.retries import OpenRetryError
from guardfleet.store.jobs.views import JobView
from guardfleet.store.keys import Caller

router = APIRouter(prefix="/v1/batches", tags=["batches"])

Codes = Annotated[
    list[Annotated[str, Query(max_length=100)]] | None,
    Query(max_length=len(ERROR_CODES), description=f"Only texts with these error codes: {', '.join(ERROR_CODES)}."),
]


@router.post("/{batch_id}/retry", operation_id="retryBatch", responses=MADE, openapi_extra=reads(IDEMPOTENCY_KEY))
async def retry(request: Request, batch_id: str, context: AppContext, caller: BatchesWriter, error: Codes = None) -> Response:
    """Judge the failed texts of an ended batch again, as a new batch that is linked to it.

    While that one has not ended, the same request is answered with it, and no text is taken into a second one.
    """
    async with Once.of(request, context.db, caller, request.url.query.encode()) as once:
        if once.earlier is not None:
            earlier = await in_thread(views.get, context.db, ids.JOB.parse(once.earlier), tenant_id=caller.tenant_id)
            if earlier.state is not JobState.INGESTING:  # else it may have been interrupted: `start` looks
                return made(context, earlier)
        record = once.recording()
        found = await judged_again(
            request,
            context,
            caller,
            batch_id,
            error or (),
            also=lambda connection, public_id: record(connection, ids.BATCH.of(public_id)),
        )
        return made(context, found)


async def judged_again(
    request: Request,
    context: Context,
    caller: Caller,
    batch_id: str,
    codes: Sequence[str],
    *,
    also: use_case.Also = lambda connection, public_id: None,
) -> JobView:
    """Judge failed texts of a caller's job again; return the new job. Raises ProblemError 409, 429, and as `use_case`."""
    job = await in_thread(views.get, context.db, ids.JOB.parse(batch_id), tenant_id=caller.tenant_id)
    if not job.state.is_final:
        detail = "the batch has not ended: retry it once it has, or cancel it first."
        raise ProblemError(409, "batch_not_ended", detail, headers={"x-should-retry": "false"})
    asked = await in_thread(use_case.wanted, context.db, context.keyring, job, codes)
    url, addresses = asked.callback_url, None
    if asked.earlier is None:
        await context.throttle.spend(request, caller, asked.texts)
        if url is not None:
            addresses = await context.receivers.addresses(url, tenant_id=caller.tenant_id, name="callback_url")
    try:
        found = await beside(
            context.body_threads,
            use_case.start,
            context.db,
            context.keyring,
            context.settings,
            asked,
            addresses=addresses,
            also=also,
        )
    except OpenRetryError as other:
        raise ProblemError(409, "in_progress", str(other), headers={"Retry-After": "1"}) from None
    return found.job
