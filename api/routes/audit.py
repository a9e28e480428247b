"""The audit trail of the caller's tenant, for keys that may read it."""

import datetime as dt
from typing import Annotated, Any

from fastapi import APIRouter, Query

from api.context import AppContext, AuditReader
from api.http.pages import page_object
from api.http.problems import ProblemError
from api.http.threads import in_thread
from api.schemas.base import answer
from api.schemas.people import AuditPage
from guardfleet.domain import ids
from guardfleet.domain.actions import ACTIONS
from guardfleet.errors import NotFoundError
from guardfleet.store import audit
from guardfleet.store.audit import Event, Position, Wanted
from guardfleet.store.postgres.database import Database

router = APIRouter(tags=["audit"])

MAX_PAGE = 1000
UnixTime = Annotated[float, Query(ge=0, le=1e11)]
ActionName = Annotated[str, Query(max_length=100, json_schema_extra={"enum": list(ACTIONS)})]


@router.get("/v1/audit", operation_id="listAuditEvents", responses=answer(AuditPage))
async def listing(
    context: AppContext,
    caller: AuditReader,
    after: Annotated[str | None, Query(max_length=100, description="`last_id` of the previous page.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    since: Annotated[UnixTime | None, Query(description="Only actions since this Unix time.")] = None,
    until: Annotated[UnixTime | None, Query(description="Only actions before this Unix time.")] = None,
    actor: Annotated[str | None, Query(max_length=200, description="The actor's id or type.")] = None,
    action: ActionName | None = None,
    batch: Annotated[str | None, Query(max_length=100, description="Only actions on this batch.")] = None,
) -> dict[str, Any]:
    """List what was done to your tenant's batches, files, keys and endpoints, newest first. Needs the scope `audit:read`."""
    if action is not None and action not in ACTIONS:
        raise ProblemError(400, "unknown_action", f"action must be one of: {', '.join(ACTIONS)}.", param="action")
    wanted = Wanted(
        tenant_id=caller.tenant_id,
        since=_moment(since),
        until=_moment(until),
        actor=actor,
        actions=None if action is None else (action,),
        subject=None if batch is None else ids.JOB.of(ids.JOB.parse(batch)),
    )
    place = None if after is None else await in_thread(_place, context.db, after, caller.tenant_id)
    found = await in_thread(audit.page, context.db, wanted, after=place, limit=limit + 1, newest_first=True)
    return page_object([_audit_object(event) for event in found[:limit]], has_more=len(found) > limit)


def _place(db: Database, after: str, tenant_id: int) -> Position:
    try:
        return audit.position(db, ids.AUDIT.parse(after), tenant_id=tenant_id)
    except NotFoundError:  # never an empty page: it would look like the end
        detail = "after is not a row of your audit trail, or no longer: take `last_id` of the previous page."
        raise ProblemError(400, "invalid_cursor", detail, param="after") from None


def _moment(unix_s: float | None) -> dt.datetime | None:
    return None if unix_s is None else dt.datetime.fromtimestamp(unix_s, dt.UTC)


def _audit_object(event: Event) -> dict[str, Any]:
    return event.as_dict() | {"object": "audit_event", "created_at": int(event.at.timestamp())}
