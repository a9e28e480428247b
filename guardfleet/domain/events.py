"""Events: what a tenant's endpoints are told, by which name, and what an event says. Names and counts, never a text.

Fields as the OpenAI SDK's `unwrap` and Standard Webhooks read them.
"""

import datetime as dt
import json
import uuid
from collections.abc import Mapping
from typing import Any, Literal, get_args

from guardfleet.domain import ids
from guardfleet.domain.states import JobState

EndKind = Literal["batch.completed", "batch.cancelled", "batch.failed", "batch.expired"]
OptInKind = Literal["batch.progress", "verdict.flagged"]  # told to endpoints that listen to them
EventKind = Literal[EndKind, OptInKind]

END_KINDS: tuple[EndKind, ...] = get_args(EndKind)  # a job ends once, in one of these: its callback URL is told too
KINDS: tuple[EventKind, ...] = get_args(EventKind)
ENDS: Mapping[JobState, EndKind] = {  # of the states that are final
    JobState.COMPLETED: "batch.completed",
    JobState.CANCELLED: "batch.cancelled",
    JobState.FAILED: "batch.failed",
    JobState.EXPIRED: "batch.expired",
}
PROGRESS: OptInKind = "batch.progress"  # at each tenth of the job; says `done` and `total`
FLAGGED: OptInKind = "verdict.flagged"  # a shard has `unsafe` texts; `ord`, its ordinal, is sent as a cursor
TEST = "test"  # marks an event that was made up: an endpoint's owner has asked for it
TEST_BATCH = ids.BATCH.of(uuid.UUID(int=0))


def is_test(subject: Mapping[str, Any] | None) -> bool:
    """Whether the event that says this was made up."""
    return bool(subject and subject.get(TEST))


def about_batch(public_id: uuid.UUID, **known: Any) -> dict[str, Any]:
    """What each event of a job says: its ids, then what is known of it at the time of sending."""
    return {"id": ids.BATCH.of(public_id), "job": ids.JOB.of(public_id), **known}


def body(event_id: str, kind: str, occurred_at: dt.datetime, data: Mapping[str, Any]) -> bytes:
    """The event as it is sent."""
    event = {
        "id": event_id,
        "object": "event",
        "type": kind,
        "created_at": int(occurred_at.timestamp()),
        "timestamp": occurred_at.isoformat(),
        "data": data,
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
