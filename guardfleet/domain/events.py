"""Events: their kinds, and the body that endpoints receive. Names and counts, never a text.

The fields follow the OpenAI SDK's `unwrap` and Standard Webhooks.
"""

import datetime as dt
import json
import uuid
from collections.abc import Mapping
from typing import Any, Literal, get_args

from guardfleet.domain import ids
from guardfleet.domain.states import JobState

EndKind = Literal["batch.completed", "batch.cancelled", "batch.failed", "batch.expired"]
OptInKind = Literal["batch.progress", "verdict.flagged"]  # sent only to endpoints that subscribe to them
EventKind = Literal[EndKind, OptInKind]

END_KINDS: tuple[EndKind, ...] = get_args(EndKind)  # a job ends once, in one of these; its callback URL gets it too
KINDS: tuple[EventKind, ...] = get_args(EventKind)
ENDS: Mapping[JobState, EndKind] = {  # for each final state
    JobState.COMPLETED: "batch.completed",
    JobState.CANCELLED: "batch.cancelled",
    JobState.FAILED: "batch.failed",
    JobState.EXPIRED: "batch.expired",
}
PROGRESS: OptInKind = "batch.progress"  # at each tenth of the job; has `done` and `total`
FLAGGED: OptInKind = "verdict.flagged"  # a shard has unsafe texts, or some to review or block; `ord` is sent as a cursor
TEST = "test"  # marks an event that an endpoint's owner asked for as a test
TEST_BATCH = ids.BATCH.of(uuid.UUID(int=0))


def is_test(subject: Mapping[str, Any] | None) -> bool:
    """Return whether the event with this subject is a test event."""
    return bool(subject and subject.get(TEST))


def about_batch(public_id: uuid.UUID, **known: Any) -> dict[str, Any]:
    """Return what each event of a job says: its ids, and what is known when it is sent."""
    return {"id": ids.BATCH.of(public_id), "job": ids.JOB.of(public_id), **known}


def body(event_id: str, kind: str, occurred_at: dt.datetime, data: Mapping[str, Any]) -> bytes:
    """Return the event's body as it is sent."""
    event = {
        "id": event_id,
        "object": "event",
        "type": kind,
        "created_at": int(occurred_at.timestamp()),
        "timestamp": occurred_at.isoformat(),
        "data": data,
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
