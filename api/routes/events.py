"""The progress of a batch as a stream of server-sent events, which a client may lose and take up again.

Invariant: an event's id says what it told. Whoever comes back with it is told only what is newer, and 204 once nothing will be.
"""

from collections.abc import AsyncIterator
from typing import Annotated

import orjson
from fastapi import APIRouter, Header
from fastapi.responses import Response, StreamingResponse

from api.context import AppContext, BatchesReader
from api.http.threads import in_thread
from api.openai.batch import batch_object
from api.services.job_watch import mark
from guardfleet.domain import ids
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView

router = APIRouter(prefix="/v1/batches", tags=["results"])

BEAT_S = 15.0  # a stream sends something at least this often, so that proxies keep it open
RETRY_MS = 2000  # clients that lose the stream come back after this long
BEAT = b": still there\n\n"
RESPONSES = {
    200: {"content": {"text/event-stream": {}}, "description": "`batch.progress` each time it changes, then `batch.ended`."},
    204: {"description": "The event with this `Last-Event-ID` was the last."},
}
LastId = Annotated[
    str | None, Header(alias="Last-Event-ID", description="The id of the last event seen: only what is newer is sent.")
]


@router.get("/{batch_id}/events", operation_id="streamBatch", response_class=StreamingResponse, responses=RESPONSES)  # type: ignore[arg-type]
async def events(batch_id: str, context: AppContext, caller: BatchesReader, last_event_id: LastId = None) -> Response:
    """Stream the batch as server-sent events, each time it changes, until it has ended. Clients may come back with the last id."""
    slots, price = context.watching.slots, context.settings.price_per_device_hour
    slots.require(caller.key_id)
    first = await in_thread(views.get, context.db, ids.JOB.parse(batch_id), tenant_id=caller.tenant_id)
    is_known = last_event_id == _id(first)
    if is_known and first.state.is_final:
        return Response(status_code=204, headers={"Cache-Control": "no-store"})

    async def stream() -> AsyncIterator[bytes]:
        with slots.held(caller.key_id):  # only now: nobody would learn of a stream that never begins
            job = first
            yield b"retry: %d\n%b" % (RETRY_MS, BEAT if is_known else _event(job, price))
            while not job.state.is_final:
                newer = await context.watching.news(job, within_s=BEAT_S)
                yield BEAT if newer is job else _event(newer, price)
                job = newer

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream(), media_type="text/event-stream", headers=headers)


def _event(job: JobView, price: float | None) -> bytes:
    kind = b"batch.ended" if job.state.is_final else b"batch.progress"
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (_id(job).encode(), kind, orjson.dumps(batch_object(job, price=price)))


def _id(job: JobView) -> str:
    """Return what an event of this job is called: the same as long as nothing is new."""
    return "-".join(str(int(part)) for part in mark(job))
