"""Moderations at once: in OpenAI's terms, and in the guard's own."""

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from api.context import AppContext, Context, ModerateCaller, in_thread
from api.fields import JUDGED, Asked, ModelName
from api.mapping import result_json
from api.problems import ProblemError
from guardfleet.errors import LineError, NotFoundError, RejectedError
from guardfleet.plan import Plan
from guardfleet.rows import row_of
from guardfleet.sealing import PayloadRow
from guardfleet.store import verdicts
from guardfleet.store.keys import Caller
from guardfleet.store.online import OnlineJob
from guardfleet.store.verdicts import Page
from guardfleet.verdict import Severity

router = APIRouter(prefix="/v1", tags=["moderations"])

MOST_INPUTS = 256
MOST_MESSAGES = 1000
THEIRS = ("omni-moderation", "text-moderation")  # names of OpenAI's models stand for whatever model there is
FLAG_FROM = {"controversial": Severity.CONTROVERSIAL, "unsafe": Severity.UNSAFE}


def _text_only(kind: object) -> object:
    if isinstance(kind, str) and kind != "text":
        raise PydanticCustomError("not_text", "only text is judged, no image or other part: send parts of the type 'text'")
    return kind


class TextPart(Asked):
    """A part of one input."""

    model_config = ConfigDict(strict=True)
    type: Annotated[Literal["text"], BeforeValidator(_text_only)]
    text: Annotated[str, JUDGED]


class ModerationRequest(Asked):
    """What is to be judged: a text, or a list of texts; a list of parts is one input."""

    model_config = ConfigDict(strict=True)
    input: Annotated[
        str
        | Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS)]
        | Annotated[list[TextPart], Field(min_length=1, max_length=MOST_INPUTS)],
        JUDGED,
    ]
    model: ModelName | None = None
    flag_from: Literal["controversial", "unsafe"] = Field("unsafe", description="What is `flagged`; guardfleet's own.")


class Message(Asked):
    """One turn of a conversation."""

    model_config = ConfigDict(strict=True)
    role: Annotated[str, StringConstraints(max_length=50)]
    content: Annotated[str, JUDGED]


class OwnRequest(Asked):
    """A text, or a conversation whose last turn is judged."""

    model_config = ConfigDict(extra="forbid", strict=True)
    text: Annotated[str | None, JUDGED] = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MOST_MESSAGES)] | None = None
    model: ModelName | None = None


@router.post("/moderations")
async def create(asked: ModerationRequest, request: Request, context: AppContext, caller: ModerateCaller) -> Response:
    """Judge texts while you wait. What the model has no category for is 0 and applied to no input: docs/api.md says which."""
    if isinstance(asked.input, str):
        texts = [asked.input]
    else:
        texts = [part for part in asked.input if isinstance(part, str)]
        if not texts:  # one input in parts
            texts = ["\n".join(part.text for part in asked.input if isinstance(part, TextPart))]
    values = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    job, page, model = await judge(request, context, caller, values, asked.model)
    about = {"id": f"modr-{job.public_id.hex}", "model": model}
    flag_from = FLAG_FROM[asked.flag_from]
    results = (result_json(row, page.models[row.model_id], flag_from=flag_from) for row in page.rows)
    return _json(b'%b,"results":[%b]}' % (orjson.dumps(about)[:-1], b",".join(results)))


@router.post("/moderate")
async def moderate(asked: OwnRequest, request: Request, context: AppContext, caller: ModerateCaller) -> Response:
    """Judge a text or a conversation while you wait, in the guard's own terms: the verdict as results and exports have it."""
    value = asked.model_dump(exclude_none=True, exclude={"model"})
    job, page, _ = await judge(request, context, caller, [{"id": "0", **value}], asked.model)
    (verdict,) = page.json_objects()
    about = {"id": f"modr-{job.public_id.hex}", "object": "moderation"}
    return _json(b'%b,"verdict":%b}' % (orjson.dumps(about)[:-1], verdict))


@router.get("/models")
async def models(context: AppContext, caller: ModerateCaller) -> dict[str, Any]:
    """Models that have served verdicts here."""
    del caller
    names = await in_thread(verdicts.served, context.db)
    return {"object": "list", "data": [_model_object(name) for name in names]}


@router.get("/models/{model:path}")
async def retrieve(model: str, context: AppContext, caller: ModerateCaller) -> dict[str, Any]:
    """One of them, by its name, which may have slashes."""
    del caller
    if model not in await in_thread(verdicts.served, context.db):
        raise NotFoundError("no model of this name has served a verdict here.")
    return _model_object(model)


def _model_object(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "guardfleet"}


async def judge(
    request: Request,
    context: Context,
    caller: Caller,
    values: list[dict[str, Any]],
    model: str | None,
    *,
    keeps_nothing: bool = False,
) -> tuple[OnlineJob, Page, str]:
    """The job, its verdicts in order, and the name of the model that gave the first."""
    named = None if model is None or model.startswith(THEIRS) else model
    if named is not None:
        await in_thread(verdicts.require_served, context.db, Plan(named))
    rows = [_row(i, value, context) for i, value in enumerate(values)]
    await context.throttle.spend(request, caller, len(rows))
    job, page = await context.online.judge(rows, tenant_id=caller.tenant_id, model=named, keeps_nothing=keeps_nothing)
    failed = next((row for row in page.rows if row.severity == Severity.ERROR), None)
    if len(page.rows) < len(rows) or failed:
        code = failed.error if failed and failed.error else "no_verdict"
        if code in ("too_long", "invalid_conversation"):
            raise ProblemError(400, code, f"the input cannot be judged: {failed.error_detail if failed else code}.", param="input")
        raise ProblemError(503, code, "the input has no verdict; it may have one if sent again.", headers={"Retry-After": "1"})
    return job, page, page.models[page.rows[0].model_id].name


def _row(i: int, value: dict[str, Any], context: Context) -> PayloadRow:
    try:
        return row_of(i, value, max_text_bytes=context.settings.max_text_bytes)
    except LineError as error:
        raise ProblemError(400, error.code, f"{error.detail}.", param="input") from None
    except RejectedError as error:
        raise ProblemError(400, "rejected", str(error), param="input") from None


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
