"""Detections while the caller waits: what detectors other than the guard say of texts."""

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import ConfigDict, Field

from api.body.duplicate_members import unambiguous
from api.context import AppContext, ModerateCaller
from api.http.fields import JUDGED, Asked
from api.http.problems import ProblemError
from api.routes.moderations import MOST_INPUTS, MOST_MESSAGES, judged, row_for
from api.schemas.base import answer
from api.schemas.verdicts import DetectedTexts
from guardfleet.domain import ids
from guardfleet.domain.plan import MOST_DETECTORS, detectors_of
from guardfleet.domain.verdict import GUARD

router = APIRouter(prefix="/v1", tags=["detections"], dependencies=[Depends(unambiguous)])


class DetectRequest(Asked):
    """A text, a list of texts, or a conversation whose last turn is judged; and who judges."""

    model_config = ConfigDict(extra="forbid", strict=True)
    input: Annotated[
        str | Annotated[list[str], Field(min_length=1, max_length=MOST_INPUTS)] | None,
        Field(description="A text, or several."),
        JUDGED,
    ] = None
    messages: Annotated[
        Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_MESSAGES)] | None,
        Field(description="A conversation in any common chat format: see docs/rows.md."),
        JUDGED,
    ] = None
    detectors: list[str] = Field(
        min_length=1, max_length=MOST_DETECTORS, description="Names of detectors, such as ai-text; `guard` adds a verdict."
    )


@router.post("/detect", operation_id="detect", responses=answer(DetectedTexts))
async def detect(asked: DetectRequest, request: Request, context: AppContext, caller: ModerateCaller) -> Response:
    """Ask detectors about texts while you wait. Each text has its own result, with what each detector says of it.

    A detector that cannot say anything of a text says why in its `outcome` and `error`; the others' answers stand beside it.
    """
    if (asked.input is None) == (asked.messages is None):
        raise ProblemError(400, "invalid_request", "give either input or messages.", param="input")
    names = plan_of(asked.detectors)
    if asked.messages is not None:
        rows = [row_for(0, {"messages": asked.messages}, context, param="messages")]
    elif isinstance(asked.input, str):
        rows = [row_for(0, {"text": asked.input}, context)]
    else:
        rows = [row_for(i, {"text": text}, context, param=f"input[{i}]") for i, text in enumerate(asked.input or ())]
    job, page = await judged(request, context, caller, rows, None, detectors=names)
    said = page.detections or {}
    verdicts = list(page.json_objects()) if GUARD in names else []
    results = [b'{"index":%d,"detections":%b%b}' % (
        i,
        orjson.dumps(said.get(row.seq, {})),
        b',"verdict":%b' % verdicts[i] if verdicts else b"",
    ) for i, row in enumerate(page.rows)]  # fmt: skip
    about = {"id": ids.MODERATION.of(job.public_id), "object": "detection"}
    return Response(b'%b,"results":[%b]}' % (orjson.dumps(about)[:-1], b",".join(results)), media_type="application/json")


def plan_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the detectors in the order in which they judge. Raises ProblemError 400 for names that make no plan."""
    try:
        return detectors_of(names)
    except ValueError as error:
        raise ProblemError(400, "invalid_request", f"{error}.", param="detectors") from None
