"""Batches: jobs in OpenAI's shape, made from an uploaded file or from lines in the body."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from pydantic.json_schema import models_json_schema

from api.body.inline_lines import CONTENT_TYPES, BodyLines, check_headers, refuse_packed
from api.context import AppContext, BatchesReader, BatchesWriter, Context
from api.http.fields import DEPRECATED, IGNORED
from api.http.header_parameters import CALLBACK_SECRET, IDEMPOTENCY_KEY, reads
from api.http.idempotency import SECRET_HEADER, Once, has_key
from api.http.pages import page_object
from api.http.problems import ProblemError
from api.http.threads import beside, in_thread
from api.openai.batch import BatchOptions, BatchRequest, LineOptions, batch_object
from api.schemas.base import answer
from api.schemas.batches import Batch, BatchPage
from guardfleet.domain import ids
from guardfleet.domain.options import OLD_NAMES
from guardfleet.domain.states import JobState
from guardfleet.errors import LineError, RejectedError
from guardfleet.jobs import diagnosis
from guardfleet.jobs.intake import Intake
from guardfleet.jobs.submit import callback_secret, open_job
from guardfleet.rows.lines import NumberedLine, take_lines
from guardfleet.store import files
from guardfleet.store.files import StoredFile
from guardfleet.store.jobs import control, unprocessed, views
from guardfleet.store.jobs import intake as stored_intake
from guardfleet.store.jobs.creation import NewJob
from guardfleet.store.jobs.intake import OpenJob
from guardfleet.store.jobs.views import JobView
from guardfleet.store.keys import Caller
from guardfleet.store.postgres.database import Database

router = APIRouter(prefix="/v1/batches", tags=["batches"])

MAX_REQUEST_BYTES = 64 << 10
ERRORS_SHOWN = 20
_, _SCHEMAS = models_json_schema([(BatchRequest, "validation")], ref_template="#/components/schemas/{model}")
SCHEMAS = _SCHEMAS["$defs"]  # the route reads the body itself, so the framework does not know them
for _old, _new in OLD_NAMES.items():  # without a default: a generated client would send both
    _of_new = {word: said for word, said in SCHEMAS["BatchRequest"]["properties"][_new].items() if word != "default"}
    SCHEMAS["BatchRequest"]["properties"][_old] = _of_new | {"deprecated": True, "description": f"The old name of `{_new}`."}
MADE = answer(Batch, description="The batch that was made.", Location="Its URL.")
CREATED = answer(
    Batch, description="The batch that was made.",
    Location="Its URL.", guardfleet_deprecated="Old names, each with its new one.", guardfleet_ignored="Members without effect.",
)  # fmt: skip
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/BatchRequest"}},
            **{kind: {"schema": {"type": "string", "format": "binary"}} for kind in CONTENT_TYPES},
        },
    }
}


@router.post("", operation_id="createBatch", responses=CREATED, openapi_extra=BODY | reads(IDEMPOTENCY_KEY, CALLBACK_SECRET))
async def create(
    request: Request, context: AppContext, caller: BatchesWriter, options: Annotated[LineOptions, Query()]
) -> Response:
    """Create a batch from an uploaded file (JSON), or from lines in the body (JSONL): `{"id", "text"}` or a batch request each."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "application/json":
        return await _of_file(request, context, caller)
    if kind not in CONTENT_TYPES:
        raise ProblemError(
            415, "unsupported_content_type", f"send application/json, or the texts as {' or '.join(CONTENT_TYPES[:2])}."
        )
    return await _of_lines(request, context, caller, options)


async def _of_file(request: Request, context: Context, caller: Caller) -> Response:
    refuse_packed(request)
    if request.url.query:
        detail = "with a JSON body, put all options into the body: parameters in the URL are not read."
        raise ProblemError(400, "invalid_parameter", detail, param=next(iter(request.query_params), None))
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_REQUEST_BYTES:
            raise ProblemError(413, "too_large", f"the request is too large: at most {MAX_REQUEST_BYTES} bytes are allowed.")
    try:
        asked = BatchRequest.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in error.errors()]) from None
    async with Once.of(request, context.db, caller, body) as once:
        if once.earlier is not None:
            return made(context, await _job(once.earlier, context, caller.tenant_id))
        file = await in_thread(files.get, context.db, ids.FILE.parse(asked.input_file_id), tenant_id=caller.tenant_id)
        secret, addresses = await _callback(request, context, caller, asked)
        new = NewJob(
            asked.asked(),
            caller.tenant_id,
            callback_secret=secret,
            input_file_id=file.public_id,
            endpoint=asked.endpoint,
        )
        record, label = once.recording(), None

        def also(connection: Any, public_id: uuid.UUID) -> None:
            nonlocal label
            label = ids.BATCH.of(public_id)
            record(connection, label)

        try:
            job = await opened_of_file(request, context, caller, new, file, addresses=addresses, also=also)
        except ProblemError:
            once.unmade = label
            raise
    answer = made(context, await _job(ids.BATCH.of(job.public_id), context, caller.tenant_id), job.callback_secret)
    _say_old_names(answer, orjson.loads(body))
    if asked.output_expires_after is not None:
        answer.headers[IGNORED] = "output_expires_after"
    return answer


async def opened_of_file(
    request: Request,
    context: Context,
    caller: Caller,
    new: NewJob,
    file: StoredFile,
    *,
    addresses: Sequence[str] | None = None,
    also: Callable[[Any, uuid.UUID], None] | None = None,
) -> OpenJob:
    """Make a job of an uploaded file, whose texts are taken in from then on. Raises as `open_job`, and ProblemError 429."""
    job = await in_thread(open_job, context.db, context.keyring, context.settings, new, addresses=addresses, also=also)
    try:
        await context.throttle.spend(request, caller, file.lines or 0)
    except ProblemError as error:
        await in_thread(stored_intake.abandon, context.db, job.id, error.detail)
        raise
    request.state.job = job.public_id
    context.file_intakes.bring(job, file.public_id)
    return job


async def _of_lines(request: Request, context: Context, caller: Caller, options: LineOptions) -> Response:
    check_headers(request, context)
    with context.bodies.taken(caller.key_id):
        return await _read(request, context, caller, options)


async def _read(request: Request, context: Context, caller: Caller, options: LineOptions) -> Response:
    body = BodyLines(request, context)
    if not has_key(request):
        return await _taken(request, context, caller, options, body)
    async with Once.of(request, context.db, caller, request.url.query.encode()) as once:
        if once.earlier is None:
            return await _taken(request, context, caller, options, body, once)
        await body.read()
        once.require_same(body.digest)
        return made(context, await _job(once.earlier, context, caller.tenant_id))


async def _taken(
    request: Request, context: Context, caller: Caller, options: LineOptions, body: BodyLines, once: Once | None = None
) -> Response:
    """Create a batch of all lines in the body; the idempotency record is written when its intake is closed."""
    secret, addresses = await _callback(request, context, caller, options)
    new = NewJob(options.asked(), caller.tenant_id, callback_secret=secret)
    blocks = body.blocks()
    lines: list[NumberedLine] | None = await _first(blocks, options)
    intake = await in_thread(Intake, context.db, context.keyring, context.settings, new, addresses=addresses)
    request.state.job = intake.job.public_id
    try:
        while lines is not None:
            await context.throttle.spend(request, caller, len(lines))
            rows = take_lines(lines, max_text_bytes=context.settings.intake.max_text_bytes, columns=options.columns)
            await beside(context.body_threads, intake.add_all, rows)
            lines = await anext(blocks, None)
        label, record = ids.BATCH.of(intake.job.public_id), once.recording(body.digest) if once else None
        job = await in_thread(intake.seal, also=(lambda connection: record(connection, label)) if record else None)
    except BaseException as error:
        await in_thread(intake.give_up, error)
        raise
    answer = made(context, job, intake.callback_secret, intake.first_rejected)
    _say_old_names(answer, request.query_params)
    return answer


async def _first(blocks: AsyncIterator[list[NumberedLine]], options: LineOptions) -> list[NumberedLine]:
    """Return the first lines. Raises ProblemError if there are none, before the batch exists, unless that is allowed."""
    async for lines in blocks:
        if lines:
            return lines
    if not options.allow_empty:
        raise ProblemError(400, "empty_body", "the body has no rows: add ?allow_empty=true to accept that.")
    return []


async def _callback(request: Request, context: Context, caller: Caller, asked: BatchOptions) -> tuple[str | None, Sequence[str]]:
    """Return the callback's secret and addresses, resolved once, so that a mistake shows before any input is read."""
    url, secret = asked.callback_url, request.headers.get(SECRET_HEADER)
    if url is None:
        return None, ()
    found = await context.receivers.addresses(url, tenant_id=caller.tenant_id, name="callback_url")
    return callback_secret(url, secret, context.settings.webhooks.allow_networks, found), found


def _say_old_names(answer: Response, asked: Iterable[str]) -> None:
    """List in a header the options given under deprecated names."""
    if old := sorted(OLD_NAMES.keys() & set(asked)):
        answer.headers[DEPRECATED] = ", ".join(f"{name}={OLD_NAMES[name]}" for name in old)


def made(context: Context, job: JobView, secret: str | None = None, refused: list[LineError] | None = None) -> Response:
    """Return the answer to a request that made a batch."""
    body = batch_object(job, refused or (), price=context.settings.price_per_device_hour)
    if secret:
        body["callback_secret"] = secret
    return JSONResponse(body, headers={"Location": f"/v1/batches/{body['id']}"})


@router.get("", operation_id="listBatches", responses=answer(BatchPage))
async def listing(
    context: AppContext,
    caller: BatchesReader,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """List your batches, newest first."""
    found = await in_thread(
        views.page, context.db, tenant_id=caller.tenant_id, after=ids.JOB.parse(after) if after else None, limit=limit + 1
    )
    return page_object(
        [batch_object(job, price=context.settings.price_per_device_hour) for job in found[:limit]], has_more=len(found) > limit
    )


@router.get("/{batch_id}", operation_id="retrieveBatch", responses=answer(Batch))
async def retrieve(batch_id: str, context: AppContext, caller: BatchesReader) -> Response:
    """Return a batch's status, speed, and what blocks it; costs the same for ten million texts as for ten."""

    def found() -> bytes:
        job = views.get(context.db, ids.JOB.parse(batch_id), tenant_id=caller.tenant_id)
        lines = unprocessed.refused(context.db, job, limit=ERRORS_SHOWN) if job.rejected else ()
        refused = [LineError(line["line"], line["code"], line["detail"]) for line in lines]
        batch = batch_object(job, refused, price=context.settings.price_per_device_hour)
        return orjson.dumps(batch | {"standstill": diagnosis.explain(context.db, job, context.settings)})

    return Response(await in_thread(found), media_type="application/json")


@router.post("/{batch_id}/cancel", operation_id="cancelBatch", responses=answer(Batch))
async def cancel(batch_id: str, context: AppContext, caller: BatchesWriter) -> dict[str, Any]:
    """Cancel a batch; existing verdicts are kept."""
    return batch_object(await cancelled(batch_id, context, caller), price=context.settings.price_per_device_hour)


@router.post("/{batch_id}/pause", operation_id="pauseBatch", responses=answer(Batch))
async def pause(batch_id: str, context: AppContext, caller: BatchesWriter) -> dict[str, Any]:
    """Pause a batch: no further shard of it is started; running ones finish."""
    return batch_object(await changed(batch_id, context, caller, control.pause), price=context.settings.price_per_device_hour)


@router.post("/{batch_id}/resume", operation_id="resumeBatch", responses=answer(Batch))
async def resume(batch_id: str, context: AppContext, caller: BatchesWriter) -> dict[str, Any]:
    """Resume a paused batch."""
    return batch_object(await changed(batch_id, context, caller, control.resume), price=context.settings.price_per_device_hour)


async def cancelled(batch_id: str, context: Context, caller: Caller) -> JobView:
    """Cancel a caller's job. Raises ProblemError 409 for one that has ended otherwise, NotFoundError."""
    job = await _job(batch_id, context, caller.tenant_id)
    if job.state in (JobState.COMPLETED, JobState.FAILED, JobState.EXPIRED):
        raise _ended(job)
    await in_thread(control.cancel, context.db, job.id)
    return await _job(batch_id, context, caller.tenant_id)


async def changed(batch_id: str, context: Context, caller: Caller, change: Callable[[Database, int], None]) -> JobView:
    """Change a caller's job while it is open. Raises ProblemError 409 for one that has ended, NotFoundError."""
    job = await _job(batch_id, context, caller.tenant_id)
    if job.state.is_final or job.state is JobState.CANCELLING:
        raise _ended(job)
    try:
        await in_thread(change, context.db, job.id)
    except RejectedError:  # it ended in between
        raise _ended(await _job(batch_id, context, caller.tenant_id)) from None
    return await _job(batch_id, context, caller.tenant_id)


async def _job(batch_id: str, context: Context, tenant_id: int) -> JobView:
    return await in_thread(views.get, context.db, ids.JOB.parse(batch_id), tenant_id=tenant_id)


def _ended(job: JobView) -> ProblemError:
    status = batch_object(job)["status"]
    return ProblemError(409, "batch_ended", f"the batch is {status}.", headers={"x-should-retry": "false"})
