"""Legal holds: texts that must not be erased, and batches that do not go because their time is over."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import StringConstraints

from api.context import AppContext, Holder
from api.http.pages import page_object
from api.http.threads import beside, in_thread
from api.routes.erasures import Wanted
from api.schemas.base import answer
from api.schemas.people import LegalHold, LegalHoldPage
from guardfleet.domain import ids
from guardfleet.jobs import holding
from guardfleet.store.erasure import holds
from guardfleet.store.erasure.holds import REASON, Hold

router = APIRouter(prefix="/v1/holds", tags=["holds"])


class NewHold(Wanted):
    """What to hold, and why, as a short code: a reason in words could name the person."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=f"^{REASON.pattern}$")]


@router.post("", operation_id="createHold", responses=answer(LegalHoldPage))
async def create(wanted: NewHold, context: AppContext, caller: Holder) -> dict[str, Any]:
    """Hold a batch, or all texts with an id or subject; a hold for each target. Needs the scope `holds:write`."""
    asked = wanted.asked(caller)
    with context.passes.taken(caller.key_id):
        made = await beside(context.pass_threads, holding.hold, context.db, context.keyring, asked, reason=wanted.reason)
    return page_object([_object(one) for one in made], has_more=False)


@router.get("", operation_id="listHolds", responses=answer(LegalHoldPage))
async def listing(
    context: AppContext,
    caller: Holder,
    after: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """List your holds, released ones too, newest first."""
    place = ids.HOLD.parse(after) if after else None
    found = await in_thread(holds.page, context.db, tenant_id=caller.tenant_id, after=place, limit=limit + 1)
    return page_object([_object(one) for one in found[:limit]], has_more=len(found) > limit)


@router.delete("/{hold_id}", operation_id="releaseHold", responses=answer(LegalHold))
async def release(hold_id: str, context: AppContext, caller: Holder) -> dict[str, Any]:
    """Release a hold; what it says of a person is destroyed."""
    return _object(await in_thread(holds.release, context.db, ids.HOLD.parse(hold_id), tenant_id=caller.tenant_id))


def _object(hold: Hold) -> dict[str, Any]:
    return {"object": "hold", **hold.as_dict()}
