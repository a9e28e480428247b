"""The results of a batch: pages with filters while it runs, and downloads."""

import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import StringConstraints

from api.context import AppContext, BatchesReader
from api.http.head_method import has_body
from api.http.header_parameters import PREFER, reads
from api.http.long_requests import wait_s
from api.http.problems import ProblemError
from api.http.threads import beside, in_thread
from api.schemas.base import answer
from api.schemas.verdicts import RejectionPage, VerdictPage
from guardfleet.domain import ids
from guardfleet.domain.decision import ACTIONS, ActionName
from guardfleet.domain.detection import MOST_LABEL
from guardfleet.domain.states import BATCH_STATUS
from guardfleet.errors import RejectedError
from guardfleet.store import audit, detections, newest, verdicts
from guardfleet.store.jobs import unprocessed, views
from guardfleet.store.jobs.views import JobView
from guardfleet.verdicts import export
from guardfleet.verdicts.cursors import pack, unpack
from guardfleet.verdicts.export import Layout
from guardfleet.verdicts.filters import CATEGORIES, SEVERITIES, Filter, Labelled
from guardfleet.verdicts.page import Cursor, of_actions, of_labels

router = APIRouter(prefix="/v1/batches", tags=["results"])

MAX_PAGE = 5000
MOST_ENTRY = 100  # characters of a detector with a policy and its version, at most
MOST_LABELS = 100
GONE_S = 1.0  # between checks whether the caller still waits
MEDIA = {"jsonl": "application/jsonl", "csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
SeverityName = Literal["safe", "controversial", "unsafe", "error"]
Ending = Literal["safe", "controversial", "unsafe", "error", "unrated"]  # the last has no rank: no verdict was asked for
CategoryName = Annotated[str, Query(max_length=100, json_schema_extra={"enum": list(CATEGORIES)})]

Actions = Annotated[
    list[ActionName] | None, Query(max_length=len(ACTIONS), description="Only texts with these actions by the policy in force.")
]

OfDetector = Annotated[str | None, Query(max_length=MOST_ENTRY, description="The detector whose labels `label` names.")]
Labels = Annotated[
    list[Annotated[str, StringConstraints(max_length=MOST_LABEL)]] | None,
    Query(max_length=MOST_LABELS, description="Only texts to which `detector` gave one of these, or too_short, unlabelled, error."),
]


@router.get("/{batch_id}/results", operation_id="listResults", responses=answer(VerdictPage), openapi_extra=reads(PREFER))
async def results(
    request: Request,
    batch_id: str,
    context: AppContext,
    caller: BatchesReader,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 1000,
    severity: Annotated[list[Ending] | None, Query(max_length=5)] = None,
    status: Annotated[Literal["completed", "failed"] | None, Query(description="`failed`: texts without a verdict.")] = None,
    category: CategoryName | None = None,
    since: Annotated[float | None, Query(ge=0, le=1e11, description="Only verdicts since this Unix time.")] = None,
    action: Actions = None,
    detector: OfDetector = None,
    label: Labels = None,
) -> Response:
    """Return verdicts in the order they were committed, also while the batch runs. Pass `next` as `after` until `complete`.

    With `Prefer: wait=30`, an empty page waits up to that many seconds for verdicts.
    """
    if category is not None and category not in CATEGORIES:
        raise ProblemError(400, "unknown_category", f"category must be one of: {', '.join(CATEGORIES)}.", param="category")
    wanted = Filter.of(severity, category, status, since, action, Labelled.of(detector, label))
    waiting_s = wait_s(request)
    deadline = time.monotonic() + waiting_s

    def page() -> tuple[JobView, bytes, bool]:
        job = views.get(context.db, ids.JOB.parse(batch_id), tenant_id=caller.tenant_id)
        try:
            cursor = unpack(after, job_id=job.id, keys=context.keyring.cursor_keys) if after else Cursor()
        except RejectedError as error:
            raise ProblemError(400, "invalid_cursor", str(error), param="after") from None
        found = verdicts.page(context.db, job, cursor, limit=limit, wanted=wanted)
        is_last = job.state.is_final and not found.has_more
        about = {
            "object": "list",
            "first_id": found.rows[0].id if found.rows else None,
            "last_id": found.rows[-1].id if found.rows else None,
            "has_more": found.has_more,
            "next": pack(found.reached, job_id=job.id, key=context.keyring.cursor_keys[0]),
            "complete": is_last,
            "status": BATCH_STATUS[job.state],
        }
        body = b'%b,"data":[%b]}' % (orjson.dumps(about)[:-1], b",".join(found.json_objects()))
        return job, body, bool(found.rows) or is_last or found.has_more

    job, body, is_news = await in_thread(page)
    if waiting_s and not is_news:
        with context.watching.slots.taken(caller.key_id):
            while (left_s := deadline - time.monotonic()) > 0 and not is_news and not await request.is_disconnected():
                newer = await context.watching.news(job, within_s=min(left_s, GONE_S))
                if newer is not job:
                    job, body, is_news = await beside(context.news_threads, page)
    headers = {"Preference-Applied": f"wait={waiting_s}"} if waiting_s else {}
    return Response(body, media_type="application/json", headers=headers)


@router.get("/{batch_id}/rejections", operation_id="listRejections", responses=answer(RejectionPage))
async def rejections(
    batch_id: str,
    context: AppContext,
    caller: BatchesReader,
    after: Annotated[int, Query(ge=0, le=2**62, description="The `next` of the previous page.")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 1000,
) -> Response:
    """Return refused input lines, in order; while lines still come in, those so far. Pass `next` as `after` for more."""

    def page() -> bytes:
        job = views.get(context.db, ids.JOB.parse(batch_id), tenant_id=caller.tenant_id)
        found = list(unprocessed.refused(context.db, job, limit=limit + 1, after=after))
        data = found[:limit]
        reached = data[-1]["line"] if data else after
        return orjson.dumps({"object": "list", "data": data, "has_more": len(found) > limit, "next": str(reached)})

    return Response(await in_thread(page), media_type="application/json")


@router.get(
    "/{batch_id}/download",
    operation_id="downloadResults",
    response_class=StreamingResponse,
    responses={200: {"content": {kind: {} for kind in MEDIA.values()}}},
)
async def download(
    request: Request,
    batch_id: str,
    context: AppContext,
    caller: BatchesReader,
    fmt: Annotated[Literal["jsonl", "csv", "parquet"], Query(alias="format")] = "jsonl",
    min_severity: SeverityName = "safe",
    spreadsheet_safe: Annotated[bool, Query(description="CSV: put an apostrophe before what a spreadsheet would run.")] = False,
    with_retries: Annotated[bool, Query(description="Of failed texts, the newest verdict that a retry gave.")] = False,
    action: Actions = None,
    detector: OfDetector = None,
    label: Labels = None,
) -> Response:
    """Stream all verdicts so far, in input order."""
    slot = context.downloads.slot(caller.key_id)
    job = await in_thread(views.get, context.db, ids.JOB.parse(batch_id), tenant_id=caller.tenant_id)
    labels = await in_thread(detections.resolved, context.db, job.detectors, Labelled.of(detector, label))
    if has_body(request):
        told = {"format": fmt, "min_severity": min_severity, "actions": action} | ({} if labels is None else asdict(labels))
        await in_thread(audit.note, context.db, job.tenant_id, "job.export", job.label, what="verdicts", **told)
    read = newest.with_retries if with_retries else verdicts.in_order
    pages = of_labels(of_actions(read(context.db, job, min_severity=SEVERITIES[min_severity]), action), labels)
    encoded = export.encode(pages, fmt, Layout(is_spreadsheet_safe=spreadsheet_safe))
    first = await beside(context.download_threads, next, encoded, b"")  # a failure here is an error response

    async def chunks() -> AsyncIterator[bytes]:
        chunk: bytes | None = first
        try:
            while chunk is not None:
                if chunk:  # else the page is held for its row group; in between, a caller that has left is noticed
                    yield chunk
                chunk = await beside(context.download_threads, next, encoded, None)
        finally:
            slot.free()

    headers = {"Content-Disposition": f'attachment; filename="{job.label}.{fmt}"'}
    return StreamingResponse(chunks(), media_type=MEDIA[fmt], headers=headers)
