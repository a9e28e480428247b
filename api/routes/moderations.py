"""Moderations while the caller waits: in OpenAI's terms, and in the guard's own."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from api.body.duplicate_members import unambiguous
from api.context import AppContext, Context, ModerateCaller
from api.http.fields import JUDGED, Asked
from api.http.problems import ProblemError
from api.http.threads import in_thread
from api.openai.categories import result, result_json
from api.schemas.base import answer
from api.schemas.verdicts import ModelList, Moderation, OwnModeration, ServedModel
from guardfleet.domain import ids
from guardfleet.domain.decision import Decision
from guardfleet.domain.options import ModelName
from guardfleet.domain.verdict import Judgement, Model, ServedBy, Severity
from guardfleet.errors import ContentError, LineError, NotFoundError, RejectedError
from guardfleet.rows.batch_lines import input_text, refuse_beside
from guardfleet.rows.payload import PayloadRow
from guardfleet.rows.row import PLACED, row_of
from guardfleet.store.jobs.interactive import OnlineJob
from guardfleet.store.keys import Caller
from guardfleet.store.models import require_detectors, require_served, served
from guardfleet.verdicts.encoding import StoredVerdict
from guardfleet.verdicts.page import Page
from guardfleet.verdicts.rationale import reason_of
from guardfleet.verdicts.rendering import json_object

ACTION = "guardfleet-action"  # a header: what the policy in force says to do, of a text without a verdict too
router = APIRouter(prefix="/v1", tags=["moderations"], dependencies=[Depends(unambiguous)])

MOST_INPUTS = 256
MOST_MESSAGES = 1000
THEIRS = ("omni-moderation", "text-moderation")  # names of OpenAI's models stand for any model
UNFIT = ("too_long", "invalid_conversation")  # what the caller can fix
FLAG_FROM = {"controversial": Severity.CONTROVERSIAL, "unsafe": Severity.UNSAFE}


def _text_only(kind: object) -> object:
    if isinstance(kind, str) and kind != "text":
        raise PydanticCustomError("not_text", "only text can be judged, no image or other part: send parts of the type 'text'")
    return kind


class TextPart(Asked):
    """One part of an input."""

    model_config = ConfigDict(extra="allow", strict=True)
    type: Annotated[Literal["text"], BeforeValidator(_text_only)]
    text: Annotated[str, JUDGED]


class ModerationRequest(Asked):
    """The input to judge: a text, or a list of texts; a list of parts is one input."""

    model_config = ConfigDict(extra="allow", strict=True)
    input: Annotated[
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS)]
        | Annotated[list[TextPart], Field(min_length=1, max_length=MOST_INPUTS)],
        JUDGED,
    ]
    model: ModelName | None = None
    flag_from: Literal["controversial", "unsafe"] = Field("unsafe", description="Lowest severity to flag; guardfleet's own option.")


class OwnRequest(Asked):
    """A text, or a conversation whose last turn is judged."""

    model_config = ConfigDict(extra="forbid", strict=True)
    text: Annotated[str | None, JUDGED] = None
    messages: Annotated[
        Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_MESSAGES)] | None,
        Field(description="A conversation in any common chat format: see docs/rows.md."),
        JUDGED,
    ] = None
    model: ModelName | None = None


@router.post("/moderations", operation_id="createModeration", responses=answer(Moderation))
async def create(asked: ModerationRequest, request: Request, context: AppContext, caller: ModerateCaller) -> Response:
    """Judge texts while you wait. Categories that the model lacks are 0 and apply to no input: docs/api.md lists them.

    With several texts, each has its own result: one without a verdict is flagged, its `guardfleet.error` says why, and the answer's
    `guardfleet.errors` gives its index. A single text without a verdict is an error of the request.
    """
    if "detectors" in (asked.model_extra or {}):  # other members that OpenAI may have are let through: this one is guardfleet's own
        raise ProblemError(
            400, "unknown_member", "the guard alone answers here: POST /v1/detect asks detectors.", param="detectors"
        )
    flag_from = FLAG_FROM[asked.flag_from]
    beside = _beside(asked.model_extra or {})
    if isinstance(asked.input, list) and isinstance(asked.input[0], str) and len(asked.input) > 1:
        values = [{**beside, "text": text} for text in asked.input]
        return _json(await _several(request, context, caller, values, asked.model, flag_from))
    job, row, model, decision = await judge(request, context, caller, {**beside, "text": _input(asked)}, asked.model)
    about = {"id": ids.MODERATION.of(job.public_id), "model": model.name}
    return _json(b'%b,"results":[%b]}' % (orjson.dumps(about)[:-1], result_json(row, model, decision, flag_from=flag_from)))


@router.post("/moderate", operation_id="moderate", responses=answer(OwnModeration))
async def moderate(asked: OwnRequest, request: Request, context: AppContext, caller: ModerateCaller) -> Response:
    """Judge a text or a conversation while you wait, in the guard's own terms: a verdict as in results and exports."""
    value = {name: given for name, given in (("text", asked.text), ("messages", asked.messages)) if given is not None}
    job, row, model, decision = await judge(request, context, caller, value, asked.model)
    about = {"id": ids.MODERATION.of(job.public_id), "object": "moderation"}
    return _json(b'%b,"verdict":%b}' % (orjson.dumps(about)[:-1], json_object(row, model, decision)))


@router.get("/models", operation_id="listModels", responses=answer(ModelList))
async def models(context: AppContext, caller: ModerateCaller) -> dict[str, Any]:
    """List the models that have served verdicts."""
    del caller
    names = await in_thread(served, context.db)
    return {"object": "list", "data": [_model_object(name) for name in names]}


@router.get("/models/{model:path}", operation_id="retrieveModel", responses=answer(ServedModel))
async def retrieve(model: str, context: AppContext, caller: ModerateCaller) -> dict[str, Any]:
    """Return one model by its name, which may contain slashes."""
    del caller
    if model not in await in_thread(served, context.db):
        raise NotFoundError("no model of this name has served a verdict here.")
    return _model_object(model)


def _model_object(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "guardfleet"}


async def judge(
    request: Request, context: Context, caller: Caller, value: dict[str, Any], model: str | None, *, keeps_nothing: bool = False
) -> tuple[OnlineJob, StoredVerdict, Model, Decision | None]:
    """Return the job, its only verdict, the model, and what the policy decided.

    Raises ProblemError if there is no verdict and never will be.
    """
    job, page = await judged(request, context, caller, [row_for(0, value, context)], model, keeps_nothing=keeps_nothing)
    return job, *verdict_in(page)


def verdict_in(page: Page) -> tuple[StoredVerdict, Model, Decision | None]:
    """Return the only verdict of a page, the model, and what the policy decided. Raises ProblemError for an error: it is final."""
    (row,), (decision,) = page.rows, page.decided()
    said = row.judgement
    if said.severity is Severity.ERROR:
        code = said.error or "unparsed"
        status = 400 if code in UNFIT else 422
        headers = {ACTION: decision.action} if decision else None
        raise ProblemError(status, code, f"the input cannot be judged: {reason_of(said)}.", param="input", headers=headers)
    return row, page.models[row.model_id], decision


async def _several(
    request: Request, context: Context, caller: Caller, values: list[dict[str, Any]], model: str | None, flag_from: Severity
) -> bytes:
    """Build the answer for several texts, each with its own result, even if others have no verdict."""
    rows: dict[int, PayloadRow] = {}
    results: dict[int, bytes] = {}
    errors: dict[int, Judgement] = {}
    for i, value in enumerate(values):
        try:
            rows[i] = row_for(i, value, context, param=f"input[{i}]")
        except ProblemError as refused:
            errors[i] = Judgement(Severity.ERROR, served_by=ServedBy.NOBODY, error=refused.code, error_detail=str(refused.detail))
            first = refused
    if not rows:
        raise first
    job, page = await judged(request, context, caller, list(rows.values()), model)
    for i, row, decision in zip(rows, page.rows, page.decided(), strict=True):
        results[i] = result_json(row, page.models[row.model_id], decision, flag_from=flag_from)
        if row.judgement.severity is Severity.ERROR:
            errors[i] = row.judgement
    judge_of_all = page.models[
        next((row for i, row in zip(rows, page.rows, strict=True) if i not in errors), page.rows[0]).model_id
    ]
    for i in errors.keys() - results.keys():
        results[i] = orjson.dumps(result(errors[i], judge_of_all, flag_from, None))
    about: dict[str, Any] = {"id": ids.MODERATION.of(job.public_id), "model": judge_of_all.name}
    if errors:
        about["guardfleet"] = {"errors": [_error(i, errors[i]) for i in sorted(errors)]}
    return b'%b,"results":[%b]}' % (orjson.dumps(about)[:-1], b",".join(results[i] for i in range(len(values))))


def _beside(extra: dict[str, Any]) -> dict[str, Any]:
    """Return the other members, checked if the text is empty, without changing the row. Raises ProblemError for a second text."""
    try:
        refuse_beside(extra, "the request")
    except ContentError as error:
        raise ProblemError(400, error.code, f"{error.detail}.", param="input") from None
    placed = {name: value for name, value in extra.items() if name not in PLACED}
    return placed | ({"request": [placed["request"]]} if "request" in placed else {})


def _input(asked: ModerationRequest) -> str:
    """Return the only text of a request, as in a batch line."""
    given = [part.model_dump() if isinstance(part, TextPart) else part for part in asked.input]
    try:
        return asked.input if isinstance(asked.input, str) else input_text(given)
    except ContentError as error:
        raise ProblemError(400, error.code, f"{error.detail}.", param="input") from None


def _error(i: int, said: Judgement) -> dict[str, Any]:
    """Return the error of a text without a verdict; `final`: sending it again gives none either."""
    return {"index": i, "param": f"input[{i}]", "code": said.error, "message": f"{reason_of(said)}.", "final": True}


async def judged(
    request: Request,
    context: Context,
    caller: Caller,
    rows: list[PayloadRow],
    model: str | None,
    *,
    detectors: Sequence[str] | None = None,
    keeps_nothing: bool = False,
) -> tuple[OnlineJob, Page]:
    """Return the job and the verdicts of these texts, taken off the caller's quota; `detectors` as in a plan, None: the guard.

    Raises NotFoundError, RejectedError, and ProblemError 429 and 503.
    """
    named = None if model is None or model.startswith(THEIRS) else model
    if named is not None:  # `judge_now` checks both too; here before it costs quota
        await in_thread(require_served, context.db, named)
    if detectors is not None:
        await in_thread(require_detectors, context.db, detectors)
    await context.throttle.spend(request, caller, len(rows))
    return await context.online.judge(
        rows, tenant_id=caller.tenant_id, model=named, detectors=detectors, keeps_nothing=keeps_nothing
    )


def row_for(i: int, value: dict[str, Any], context: Context, *, param: str = "input") -> PayloadRow:
    """Return the row of one text of a request. Raises ProblemError that says what is wrong with it."""
    try:
        return row_of(i, {"id": str(i), **value}, max_text_bytes=context.settings.intake.max_text_bytes)
    except LineError as error:
        raise ProblemError(400, error.code, f"{error.detail}.", param=param) from None
    except RejectedError as error:
        raise ProblemError(400, "rejected", str(error), param=param) from None


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
