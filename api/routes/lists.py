"""Lists: what is looked for before the model is asked. Their versions, checked, stored, read, applied and applied no longer."""

import datetime as dt
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from api.body.list_document import BODY, entries_of, sent
from api.context import AppContext, Context, PoliciesReader, PoliciesWriter
from api.http.header_parameters import IDEMPOTENCY_KEY, reads
from api.http.idempotency import Once
from api.http.pages import page_of_versions
from api.http.problems import ProblemError
from api.http.threads import in_thread
from api.schemas.base import answer
from api.schemas.policies import ActivatedList, ListCheck, ListHits, ListPage, ListVersion
from guardfleet.lists import reading
from guardfleet.policy.document import WORD
from guardfleet.store import audit
from guardfleet.store.keys import Caller
from guardfleet.store.policy import lists
from guardfleet.store.policy.lists import Version

router = APIRouter(prefix="/v1/lists", tags=["lists"])

MOST_NEVER = 10_000
MEDIA = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}
ENTRIES: dict[int | str, dict[str, Any]] = {200: {"content": {kind.partition(";")[0]: {} for kind in MEDIA.values()}}}
Name = Annotated[str, Path(max_length=100)]
Number = Annotated[int, Path(ge=1, lt=10**9)]


@router.post("/check", operation_id="checkList", responses=answer(ListCheck), openapi_extra=BODY)
async def check(request: Request, context: AppContext, caller: PoliciesReader) -> dict[str, Any]:
    """Check a list in CSV, JSON lines or a term a line; nothing is stored. 422 `invalid_list`: `problems`, each with its line."""
    body, form = await sent(request)
    with context.passes.taken(caller.key_id):
        entries = await entries_of(context, body, form)
    return {"object": "list.check", "valid": True, "entries": len(entries)}


@router.post(
    "",
    operation_id="createList",
    openapi_extra=BODY | reads(IDEMPOTENCY_KEY),
    responses=answer(ListVersion) | answer(ListVersion, status=201, description="A new version."),
)
async def create(
    request: Request,
    context: AppContext,
    caller: PoliciesWriter,
    name: Annotated[str, Query(max_length=64, pattern=WORD, description="The list.")],
) -> Response:
    """Store the next version of a list: 201. One equal to its newest version is that one: 200."""
    body, form = await sent(request)
    with context.passes.taken(caller.key_id):
        entries = await entries_of(context, body, form)
    async with Once.of(request, context.db, caller, body) as once:
        if once.earlier is not None:
            return JSONResponse(list_object(await in_thread(lists.get, context.db, caller.tenant_id, once.earlier)))
        made, is_new = await in_thread(lists.add, context.db, caller.tenant_id, name, entries, also=once.recording())
        return JSONResponse(list_object(made), 201 if is_new else 200)


@router.get("", operation_id="listLists", responses=answer(ListPage))
async def listing(
    context: AppContext,
    caller: PoliciesReader,
    after: Annotated[str | None, Query(max_length=100, description="`last_id` of the previous page.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """List all versions of your lists, newest first."""
    return await page_of_versions(lists.page, list_object, context.db, caller, after=after, limit=limit, what="lists")


@router.get("/{name}@{version}", operation_id="retrieveList", responses=answer(ListVersion))
async def retrieve(name: Name, version: Number, context: AppContext, caller: PoliciesReader) -> dict[str, Any]:
    """Return a version, without its entries."""
    return list_object(await _version(context, caller, name, version))


@router.get("/{name}@{version}/entries", operation_id="downloadListEntries", response_class=StreamingResponse, responses=ENTRIES)
async def entries(
    name: Name,
    version: Number,
    context: AppContext,
    caller: PoliciesReader,
    form: Annotated[str, Query(alias="format", pattern="^(csv|jsonl)$", description="csv or jsonl.")] = "jsonl",
) -> Response:
    """Return a version's entries, as they can be sent again."""
    found = await _version(context, caller, name, version)
    await in_thread(audit.note, context.db, caller.tenant_id, "list.export", found.label, entries=found.n)
    stored = await in_thread(lists.entries, context.db, found)

    def lines() -> Iterator[bytes]:
        for line in reading.write(stored, form):
            yield line.encode()

    return StreamingResponse(lines(), media_type=MEDIA[form])


@router.get("/{name}@{version}/hits", operation_id="retrieveListHits", responses=answer(ListHits))
async def hits(
    name: Name,
    version: Number,
    context: AppContext,
    caller: PoliciesReader,
    since: Annotated[float | None, Query(ge=0, le=1e11, description="In batches since the day of this Unix time.")] = None,
) -> dict[str, Any]:
    """Say in how many texts each of a version's entries was found, and the names of up to 10,000 that were found in none."""
    found = await _version(context, caller, name, version)
    day = None if since is None else dt.datetime.fromtimestamp(since, dt.UTC).date()
    uses = await in_thread(lists.uses, context.db, caller.tenant_id, found.name, day)
    named = [entry.name for entry in await in_thread(lists.entries, context.db, found)]
    used = sorted((entry for entry in named if entry in uses), key=lambda entry: -uses[entry].texts)
    data = [{"entry": entry, "texts": uses[entry].texts, "last_day": f"{uses[entry].last_day}"} for entry in used]
    never = [entry for entry in named if entry not in uses]
    return {"object": "list.hits", "id": found.label, "data": data, "n_never": len(never), "never": never[:MOST_NEVER]}


@router.post("/{name}@{version}/activate", operation_id="activateList", responses=answer(ActivatedList))
async def activate(name: Name, version: Number, context: AppContext, caller: PoliciesWriter) -> dict[str, Any]:
    """Look for a version from now on, in place of the one in `replaced`. Going back is activating the old one."""
    found = await _version(context, caller, name, version)
    before = await in_thread(lists.activate, context.db, found)
    return list_object(await _version(context, caller, name, version)) | {"replaced": before}


@router.post("/{name}@{version}/deactivate", operation_id="deactivateList", responses=answer(ListVersion))
async def deactivate(name: Name, version: Number, context: AppContext, caller: PoliciesWriter) -> dict[str, Any]:
    """Look for a version no longer; verdicts that it gave stay. 409 if it is not active."""
    found = await _version(context, caller, name, version)
    if not await in_thread(lists.deactivate, context.db, found):
        raise ProblemError(409, "list_not_active", f"{found.label} is not active.", headers={"x-should-retry": "false"})
    return list_object(await _version(context, caller, name, version))


async def _version(context: Context, caller: Caller, name: str, version: int) -> Version:
    return await in_thread(lists.get, context.db, caller.tenant_id, f"{name}@{version}")


def list_object(found: Version) -> dict[str, Any]:
    """Return a version as its routes tell it."""
    return {
        "id": found.label,
        "object": "list.version",
        "name": found.name,
        "version": found.version,
        "entries": found.n,
        "active": found.is_active,
        "created_at": int(found.created_at.timestamp()),
    }
