"""Erasing one person's data, or a batch as a whole, and the receipts of that.

The main route takes its targets in the body, so that they are in no URL, which proxies log.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ConfigDict, Field, StringConstraints

from api.context import AppContext, Context, Eraser
from api.http.fields import Asked as AskedOf
from api.http.header_parameters import PREFER, reads
from api.http.long_requests import wait_s
from api.http.pages import page_object
from api.http.problems import ProblemError
from api.http.threads import beside, in_thread
from api.schemas.base import answer
from api.schemas.people import Erasure, ErasureDryRun, ErasurePage
from api.services.policy_passes import LONGEST_PASS_S, PASS_S
from guardfleet.domain import ids
from guardfleet.domain.targets import MOST, Targets
from guardfleet.errors import RejectedError, RetryableError
from guardfleet.jobs import erase as use_case
from guardfleet.jobs.asked import Asked
from guardfleet.store.erasure import receipts
from guardfleet.store.erasure.receipts import Receipt
from guardfleet.store.keys import Caller

router = APIRouter(tags=["erasures"])

ACCEPTED = 202
UNFINISHED = answer(Erasure, status=ACCEPTED, description="Not complete: send the same request again.")
Id = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=16_384)]
Value = Annotated[str, StringConstraints(min_length=1, max_length=16_384)] | bool | int | float


class Subject(AskedOf):
    """A member of the texts' metadata: a text, a number or a boolean, compared with its type."""

    model_config = ConfigDict(extra="forbid", strict=True)
    key: Key
    value: Value


class Wanted(AskedOf):
    """Whose data: texts with any of these ids or subjects, in one batch or in all; or, with neither, a batch as a whole."""

    model_config = ConfigDict(extra="forbid", strict=True)
    ids: Annotated[list[Id], Field(max_length=MOST)] = Field(default_factory=list)
    subjects: Annotated[list[Subject], Field(max_length=MOST)] = Field(default_factory=list)
    batch: Annotated[str, StringConstraints(max_length=100)] | None = None

    def asked(self, caller: Caller) -> Asked:
        """Return what is meant. Raises RejectedError, also for a list that is there and empty: it would mean the whole batch."""
        for name in ("ids", "subjects"):
            if name in self.model_fields_set and not getattr(self, name):
                raise RejectedError(f"{name} is empty: leave it out, or say whose data is meant.", param=name)
        subjects = [(one.key, one.value) for one in self.subjects]
        return Asked(caller.tenant_id, Targets.of(self.ids, subjects), self.batch)


class ErasureRequest(Wanted):
    """What to erase."""

    dry_run: bool = Field(default=False, description="Only count what it would meet.")


@router.post(
    "/v1/erasures",
    operation_id="createErasure",
    responses=answer(Erasure, ErasureDryRun) | UNFINISHED,
    openapi_extra=reads(PREFER),
)
async def create(request: Request, wanted: ErasureRequest, context: AppContext, caller: Eraser) -> Response:
    """Erase texts with their verdicts' personal parts, or a batch as a whole. Needs the scope `erasures:write`.

    While the receipt says `complete: false` (status 202), send the same request again: it goes on where it was.
    `Prefer: wait=N`: up to N s a request (10, at most 30).
    """
    asked = wanted.asked(caller)
    if wanted.dry_run:
        with context.passes.taken(caller.key_id):
            counts = await beside(context.pass_threads, use_case.count, context.db, context.keyring, asked)
        found = counts.as_dict()
        return JSONResponse({"object": "erasure.dry_run", "counts": found | {"batches": found.pop("jobs")}})
    return await _erased(request, context, caller, asked)


@router.delete("/v1/verdicts", operation_id="eraseVerdicts", responses=answer(Erasure) | UNFINISHED, openapi_extra=reads(PREFER))
async def erase_verdicts(
    request: Request,
    context: AppContext,
    caller: Eraser,
    row_id: Annotated[Id | None, Query(alias="id")] = None,
    subject_key: Key | None = None,
    subject_value: Annotated[str | None, Query(min_length=1, max_length=16_384)] = None,
    batch: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """Erase the texts with an id, or with a subject whose value is a text. Prefer `POST /v1/erasures`: proxies log URLs."""
    if (subject_key is None) != (subject_value is None):
        raise ProblemError(400, "invalid_parameter", "send subject_key and subject_value together.", param="subject_key")
    subjects = [] if subject_key is None or subject_value is None else [(subject_key, subject_value)]
    targets = Targets.of([] if row_id is None else [row_id], subjects)
    if not len(targets):
        raise ProblemError(400, "missing_parameter", "name an id or a subject.", param="id")
    return await _erased(request, context, caller, Asked(caller.tenant_id, targets, batch))


@router.delete(
    "/v1/batches/{batch_id}", operation_id="eraseBatch", responses=answer(Erasure) | UNFINISHED, openapi_extra=reads(PREFER)
)
async def erase_batch(request: Request, batch_id: str, context: AppContext, caller: Eraser) -> Response:
    """Erase a batch as a whole, with its retries: it is stopped, and its texts, verdicts, input file and own row are deleted."""
    return await _erased(request, context, caller, Asked(caller.tenant_id, Targets(), batch_id))


async def _erased(request: Request, context: Context, caller: Caller, asked: Asked) -> Response:
    seconds = wait_s(request, otherwise=PASS_S, longest=LONGEST_PASS_S)
    try:
        with context.passes.taken(caller.key_id):
            receipt = await beside(
                context.pass_threads, use_case.erase, context.db, context.keyring, asked, budget_s=float(seconds)
            )
        await _remove_contents(context)
    except RetryableError as error:
        if type(error) is not RetryableError:  # a service is away
            raise
        raise ProblemError(409, "in_progress", str(error), headers={"Retry-After": "1"}) from None
    is_whole = receipt.finished_at is not None
    return JSONResponse(_object(receipt), 200 if is_whole else ACCEPTED, headers={"Location": f"/v1/erasures/{receipt.label}"})


async def _remove_contents(context: Context) -> None:
    """Remove the contents of deleted files now, not within a minute; their keys are gone in any case."""
    await in_thread(context.file_intakes.remove_left)


@router.get("/v1/erasures", operation_id="listErasures", responses=answer(ErasurePage))
async def listing(
    context: AppContext,
    caller: Eraser,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """List your receipts, newest first."""
    place = ids.ERASURE.parse(after) if after else None
    found = await in_thread(receipts.page, context.db, tenant_id=caller.tenant_id, after=place, limit=limit + 1)
    return page_object([_object(one) for one in found[:limit]], has_more=len(found) > limit)


@router.get("/v1/erasures/{erasure_id}", operation_id="retrieveErasure", responses=answer(Erasure))
async def retrieve(erasure_id: str, context: AppContext, caller: Eraser) -> dict[str, Any]:
    """Return a receipt."""
    return _object(await in_thread(receipts.get, context.db, ids.ERASURE.parse(erasure_id), tenant_id=caller.tenant_id))


def _object(receipt: Receipt) -> dict[str, Any]:
    return {"object": "erasure", **receipt.as_dict()}
