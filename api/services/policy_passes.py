"""Policies over stored verdicts in passes, each of a few seconds: one that is tried, one that decides. Every face has the same."""

import time
from contextlib import suppress
from typing import Any

from api.http.problems import ProblemError
from guardfleet.domain import ids
from guardfleet.errors import NotFoundError
from guardfleet.jobs.redecide import redecide
from guardfleet.jobs.simulation import report, simulate
from guardfleet.policy.document import Policy
from guardfleet.store.jobs import views
from guardfleet.store.policy import decisions
from guardfleet.store.policy.decisions import Scope
from guardfleet.store.policy.policies import Version
from guardfleet.store.postgres.database import Database

PASS_S, LONGEST_PASS_S = 10, 30  # of a policy over stored verdicts, in one request
PER_HOUR = 120.0  # texts that a reviewer decides in an hour
MOST_DIGITS = 10
START = (0, 0)


def tried(db: Database, policy: Policy, scope: Scope, start: tuple[int, int], within_s: float, per_hour: float) -> dict[str, Any]:
    """Say what a policy would change of the scope's verdicts after a place; not `complete`: `next` is where to go on."""
    began = time.monotonic()
    found = simulate(db, policy, scope, within_s=within_s, after=start)
    told = report(db, policy, found, per_hour=per_hour, seconds=time.monotonic() - began)
    return {"object": "policy.test", **told, "complete": found.reached is None, "next": _next(db, found.reached)}


def _next(db: Database, reached: tuple[int, int] | None) -> str | None:
    """Return a place as its batch and the ordinal of a shard in it, the inverse of `place_of`."""
    if reached is None:
        return None
    job_id, ordinal = reached
    if (public_id := views.public_ids(db, [job_id]).get(job_id)) is None:
        detail = "a batch was deleted meanwhile: send the request again."
        raise ProblemError(409, "batch_deleted", detail, headers={"Retry-After": "1"})
    return f"{ids.BATCH.of(public_id)}.{ordinal}"


def place_of(db: Database, scope: Scope, after: str | None) -> tuple[int, int]:
    """Return the place that `next` of an answer says; None: the beginning. Raises ProblemError 400 for what is none."""
    if after is None:
        return START
    batch, _, ordinal = after.partition(".")
    with suppress(NotFoundError):
        job = views.get(db, ids.JOB.parse(batch), tenant_id=scope.tenant_id)
        is_number = ordinal.isascii() and ordinal.isdecimal() and len(ordinal) < MOST_DIGITS
        if is_number and scope.job_id in (None, job.id):
            return job.id, int(ordinal)
    raise ProblemError(400, "invalid_cursor", "after is not a `next` of this test.", param="after")


def redecided(db: Database, version: Version, scope: Scope, within_s: float) -> dict[str, Any]:
    """Decide of the scope's texts by a version, as far as the time goes; not `complete`: the same call goes on."""
    found = redecide(db, version, scope, within_s=within_s)
    return {
        "object": "redecision",
        "policy": version.label,
        "active": bool(version.is_active),
        "texts": found.texts,
        "texts_left": 0 if found.complete else decisions.n_texts(db, scope, without=version.id),
        "shards_without_verdicts": found.left,
        "complete": found.complete,
    }
