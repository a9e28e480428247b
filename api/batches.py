"""Batches: what the rest of guardfleet calls jobs, in OpenAI's shape with guardfleet's extra fields."""

import datetime as dt
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response

from api.context import ApiCaller, AppContext, Context, in_thread
from api.cursors import pack, unpack
from api.problems import ProblemError
from guardfleet import standstill
from guardfleet.errors import LineError
from guardfleet.intake import Intake, callback_secret
from guardfleet.plan import DEFAULT_PLAN, NAME_CHARS, Plan
from guardfleet.rows import take_line
from guardfleet.sealing import PayloadRow
from guardfleet.states import JobState
from guardfleet.store import ingest, jobs, verdicts
from guardfleet.store.database import Database
from guardfleet.store.ingest import NewJob
from guardfleet.store.jobs import PRIORITIES, JobView, parse_label
from guardfleet.store.keys import Caller
from guardfleet.store.verdicts import Cursor

router = APIRouter(prefix="/v1/batches", tags=["batches"])

CONTENT_TYPES = ("application/jsonl", "application/x-ndjson", "application/x-jsonlines")
LINES_AT_ONCE = 2048  # handed to the store's thread together
STATUS = {
    JobState.INGESTING: "validating",
    JobState.RUNNING: "in_progress",
    JobState.COMPLETED: "completed",
    JobState.CANCELLING: "cancelling",
    JobState.CANCELLED: "cancelled",
    JobState.FAILED: "failed",
}
MAX_PAGE = 5000


@router.post(
    "",
    openapi_extra={"requestBody": {"required": True, "content": {kind: {"schema": {"type": "string"}} for kind in CONTENT_TYPES}}},
)
async def create(
    request: Request,
    context: AppContext,
    caller: ApiCaller,
    name: Annotated[str, Query(max_length=200)] = "batch",
    callback_url: Annotated[str | None, Query(max_length=2000)] = None,
    interactive: Annotated[bool, Query()] = False,
    strict: Annotated[bool, Query()] = False,
    model: Annotated[str | None, Query(max_length=NAME_CHARS)] = None,
    second_model: Annotated[str | None, Query(max_length=NAME_CHARS)] = None,
    sure: Annotated[float, Query(gt=0, le=1)] = DEFAULT_PLAN.sure,
    sample: Annotated[float, Query(ge=0, le=1)] = DEFAULT_PLAN.sample,
    long_texts: Annotated[Literal["windows", "head", "tail", "ends"] | None, Query()] = None,
    priority: Annotated[int, Query(ge=PRIORITIES.start, lt=PRIORITIES.stop)] = 0,
    reuse: Annotated[bool, Query()] = True,
) -> JSONResponse:
    """Take texts as JSONL in the body, one `{"id", "text"}` or `{"id", "messages"}` a line; they are judged at once."""
    _check_headers(request, context)
    secret = callback_secret(callback_url, request.headers.get("guardfleet-callback-secret"))
    plan = Plan(model, second_model, sure, sample, long_texts).check()
    await in_thread(verdicts.require_served, context.db, plan)
    new = NewJob(
        name.replace("\0", ""), caller.tenant_id, int(interactive), None, None, callback_url, secret, plan, priority, strict, reuse
    )
    intake = await in_thread(Intake, context.db, context.keyring, context.settings, new)
    try:
        async for lines in _lines(request, context):
            await in_thread(intake.add_all, _rows(lines, context))
        job = await in_thread(intake.seal)
    except BaseException as error:
        await in_thread(ingest.abandon, context.db, intake.job.id, str(error) or type(error).__name__, token=intake.job.token)
        raise
    body = batch_object(job, intake.first_rejected)
    if secret:
        body["callback_secret"] = secret
    return JSONResponse(body, headers={"Location": f"/v1/batches/{body['id']}"})


@router.get("/{batch_id}")
async def retrieve(batch_id: str, context: AppContext, caller: ApiCaller) -> Response:
    """Where a batch is, how fast it goes, and what holds it up: as cheap at ten million texts as at ten."""

    def found() -> bytes:
        job = jobs.get(context.db, parse_label(batch_id), tenant_id=caller.tenant_id)
        return orjson.dumps(batch_object(job) | {"standstill": standstill.explain(context.db, job, context.settings)})

    return Response(await in_thread(found), media_type="application/json")


@router.get("/{batch_id}/results")
async def results(
    batch_id: str,
    context: AppContext,
    caller: ApiCaller,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 1000,
) -> Response:
    """Verdicts in the order they were committed, while the batch runs too. Go on with `after` = `next` until `complete`."""

    def page() -> bytes:
        job = jobs.get(context.db, parse_label(batch_id), tenant_id=caller.tenant_id)
        cursor = unpack(after, job_id=job.id, key=context.keyring.cursor_key) if after else Cursor()
        found = verdicts.page(context.db, job, cursor, limit=limit)
        about = {
            "object": "list",
            "first_id": found.rows[0].id if found.rows else None,
            "last_id": found.rows[-1].id if found.rows else None,
            "has_more": len(found.rows) == limit,
            "next": pack(found.reached, job_id=job.id, key=context.keyring.cursor_key),
            "complete": job.state.is_final and len(found.rows) < limit,
            "status": STATUS[job.state],
        }
        return b'%b,"data":[%b]}' % (orjson.dumps(about)[:-1], b",".join(found.json_objects()))

    return Response(await in_thread(page), media_type="application/json")


@router.post("/{batch_id}/cancel")
async def cancel(batch_id: str, context: AppContext, caller: ApiCaller) -> dict[str, Any]:
    """Stop a batch; verdicts it already has stay."""
    job = await _job(batch_id, context, caller.tenant_id)
    if job.state in (JobState.COMPLETED, JobState.FAILED):
        raise _ended(job)
    await in_thread(jobs.cancel, context.db, job.id)
    return batch_object(await _job(batch_id, context, caller.tenant_id))


@router.post("/{batch_id}/pause")
async def pause(batch_id: str, context: AppContext, caller: ApiCaller) -> dict[str, Any]:
    """Let a batch rest: nothing more of it is begun; what is in work finishes."""
    return await _change(batch_id, context, caller, jobs.pause)


@router.post("/{batch_id}/resume")
async def resume(batch_id: str, context: AppContext, caller: ApiCaller) -> dict[str, Any]:
    """Take a paused batch up again."""
    return await _change(batch_id, context, caller, jobs.resume)


async def _change(batch_id: str, context: Context, caller: Caller, change: Callable[[Database, int], None]) -> dict[str, Any]:
    job = await _job(batch_id, context, caller.tenant_id)
    if job.state.is_final or job.state is JobState.CANCELLING:
        raise _ended(job)
    await in_thread(change, context.db, job.id)
    return batch_object(await _job(batch_id, context, caller.tenant_id))


def batch_object(job: JobView, rejected: Iterable[LineError] = ()) -> dict[str, Any]:
    """A job as OpenAI's Batch, with guardfleet's counts beside it."""
    errors = [{"code": e.code, "message": e.detail, "param": None, "line": e.line} for e in rejected]
    ended = _unix(job.finished_at)
    return {
        "id": f"batch_{job.public_id.hex}",
        "object": "batch",
        "endpoint": "/v1/moderations",
        "input_file_id": "inline",
        "completion_window": "24h",
        "status": STATUS[job.state],
        "created_at": _unix(job.created_at),
        "in_progress_at": _unix(job.sealed_at),
        "completed_at": ended if job.state is JobState.COMPLETED else None,
        "failed_at": ended if job.state is JobState.FAILED else None,
        "cancelled_at": ended if job.state is JobState.CANCELLED else None,
        "request_counts": {
            "total": job.total + job.rejected,
            "completed": job.done - job.error,
            "failed": job.error + job.rejected,
        },
        "errors": {"object": "list", "data": errors} if errors else None,
        "metadata": job.metadata,
        "model": job.model,
        "name": job.name,
        "is_demo": job.is_demo,
        "severities": {"safe": job.safe, "controversial": job.controversial, "unsafe": job.unsafe, "error": job.error},
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


async def _job(batch_id: str, context: Context, tenant_id: int) -> JobView:
    return await in_thread(jobs.get, context.db, parse_label(batch_id), tenant_id=tenant_id)


def _ended(job: JobView) -> ProblemError:
    return ProblemError(409, "batch_ended", f"the batch is {STATUS[job.state]}.", headers={"x-should-retry": "false"})


def _check_headers(request: Request, context: Context) -> None:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind not in CONTENT_TYPES:
        raise ProblemError(415, "unsupported_content_type", f"send the texts as {' or '.join(CONTENT_TYPES[:2])}.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise ProblemError(415, "unsupported_encoding", "send the body uncompressed.", headers={"Accept-Encoding": "identity"})
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > context.settings.api_max_body_bytes:
        raise _too_large(context)


async def _lines(request: Request, context: Context) -> AsyncIterator[list[tuple[int, bytes]]]:
    """The body's lines, numbered, a few thousand at a time; never more than that and one line in memory."""
    rest, number, received = b"", 0, 0
    lines: list[tuple[int, bytes]] = []
    async for chunk in request.stream():
        received += len(chunk)
        if received > context.settings.api_max_body_bytes or len(rest) > 6 * context.settings.max_text_bytes + 65_536:
            raise _too_large(context)
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            number += 1
            lines.append((number, line))
        if len(lines) >= LINES_AT_ONCE:
            yield lines
            lines = []
    yield [*lines, (number + 1, rest)]


def _rows(lines: list[tuple[int, bytes]], context: Context) -> Iterable[tuple[int, PayloadRow | LineError]]:
    return (
        (number, take_line(number, line, max_text_bytes=context.settings.max_text_bytes)) for number, line in lines if line.strip()
    )


def _too_large(context: Context) -> ProblemError:
    return ProblemError(413, "too_large", f"a body has at most {context.settings.api_max_body_bytes} bytes, and no endless line.")


def _unix(moment: dt.datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
