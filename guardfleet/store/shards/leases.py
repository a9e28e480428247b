"""Shards in flight: claimed under a lease with a fencing token, renewed, handed back. `completion` finishes them.

Every claim raises the token, so of all workers that ever held a shard exactly one can finish it.
Lock order everywhere: shard, then job.
"""

import datetime as dt
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import kwargs_row

from guardfleet.domain import ids
from guardfleet.domain.lanes import Lane
from guardfleet.domain.plan import Plan
from guardfleet.domain.states import ShardState
from guardfleet.domain.verdict import GUARD
from guardfleet.errors import NotFoundError
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.store.policy import lists
from guardfleet.store.postgres.database import UNFLUSHED, Database
from guardfleet.store.words import INTERACTIVE, LEASED_SHARD, OPEN_JOB, READY_SHARD


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a shard until the lease ends; `token` proves it."""

    job_id: int
    shard_no: int
    token: int
    day: dt.date
    lane: Lane
    first_seq: int
    n: int
    claims: int
    failures: int
    tenant_id: int
    public_id: uuid.UUID  # of its job
    data_key: bytes | None  # wrapped; None once purged
    plan: Plan
    reuse: bool = True  # verdicts of other jobs may serve it
    # An interactive shard's encrypted texts: the caller waits, and this saves a query. None if some were erased: the statement may
    # have read the blob before, and waited for the erasure.
    blob: bytes | None = None
    keeps_nothing: bool = False  # its text is deleted with its verdict's commit, and no digest of it is kept
    lists: Sequence[int] = ()  # that its tenant applies

    @property
    def label(self) -> str:
        """The public id of its job."""
        return ids.JOB.of(self.public_id)


@dataclass(frozen=True, slots=True)
class Limits:
    """How often a shard may be tried before it is left to the dispatcher's poison handling."""

    claims: int
    failures: int


@dataclass(frozen=True, slots=True)
class Waits:
    """A worker that shards wait for: those that name its model or its detector's route and, if it `takes_any`, those without."""

    route: str
    takes_any: bool


ShardKey = tuple[int, int]  # job and number
IN_KEYS = (
    "in (select k.job_id, k.shard_no from unnest(cast(%(of_jobs)s as bigint[]), cast(%(of_nos)s as int[])) k (job_id, shard_no))"
)
AMONG = f"(s.job_id, s.shard_no) {IN_KEYS}"
NOT_SKIPPED = f"(s.job_id, s.shard_no) not {IN_KEYS}"
NO_LIMITS = Limits(1 << 14, 1 << 14)
CLAIM = f"""update shard s set state = {ShardState.LEASED}, token = s.token + 1, claims = s.claims + 1, worker = %(worker)s,
                   lease_until = now() + make_interval(secs => %(lease)s)
            from job j, {UNFLUSHED}
            where s.job_id = %(job)s and s.shard_no = %(no)s and j.id = s.job_id and {OPEN_JOB:j} and j.paused_at is null
              and ({READY_SHARD:s} or ({LEASED_SHARD:s} and s.lease_until < now()))
              and s.claims < %(max_claims)s and s.failures < %(max_failures)s
              and (%(route)s::text is null or s.model = %(route)s::text or s.model is null and %(takes_any)s)
            returning s.job_id, s.shard_no, s.token, s.day, s.lane, s.first_seq, s.n, s.claims, s.failures,
                      j.tenant_id, j.public_id, j.data_key, s.model, j.second_model, j.sure, j.sample, j.long_texts, j.detectors,
                      j.detector_cascades, j.reuse, case when {INTERACTIVE:s} and s.model is null and s.erased = 0 then (
                        select p.blob from shard_payload p
                        where p.job_id = s.job_id and p.shard_no = s.shard_no and p.day = s.day) end as blob, j.keeps_nothing,
                      {lists.ACTIVE} as lists"""


def claim(
    db: Database,
    job_id: int,
    shard_no: int,
    *,
    worker: str,
    lease_s: float,
    limits: Limits = NO_LIMITS,
    by: Waits | None = None,
) -> Claim | None:
    """Take this shard if it is ready, or if its last holder's lease is over; None if it is held, settled, or tried too often.

    None too if its job has ended, is ending or is paused, and if the shard does not wait for `by`: then the message is a late one
    from somebody else's turn. Without `by`, whom it waits for is not checked. A crash of PostgreSQL may undo a
    claim: then finish() is fenced. Limits are checked here and not only before publishing: a broker redelivers messages unasked.
    """
    values = {
        "job": job_id,
        "no": shard_no,
        "worker": worker,
        "lease": lease_s,
        "max_claims": limits.claims,
        "max_failures": limits.failures,
        "route": None if by is None else by.route,
        "takes_any": by is None or by.takes_any,
    }
    with db.session() as connection:
        return connection.cursor(row_factory=kwargs_row(_claimed)).execute(CLAIM, values).fetchone()


def _claimed(**known: Any) -> Claim:
    """Make the Claim of a row of CLAIM, which includes the parts of the plan."""
    asked = {name: known.pop(name) for name in Plan.__slots__}
    named = {"detectors": tuple(asked["detectors"] or (GUARD,)), "detector_cascades": tuple(asked["detector_cascades"] or ())}
    plan = Plan(**asked | named)
    return Claim(plan=plan, **known | {"lane": Lane(known["lane"])})


def load(db: Database, keyring: Keyring, held: Claim) -> list[PayloadRow]:
    """Return the shard's texts, decrypted. ConfigurationError if the key does not fit, NotFoundError if texts or key are gone."""
    blob = held.blob
    if blob is None:
        with db.session() as connection:
            blob = connection.scalar(
                "select blob from shard_payload where job_id = %(job)s and shard_no = %(no)s and day = %(day)s",
                {"job": held.job_id, "no": held.shard_no, "day": held.day},
            )
    if blob is None or held.data_key is None:
        raise NotFoundError("the shard's texts were deleted.")
    return keyring.decrypt_rows(held.data_key, bytes(blob), job_id=held.job_id, shard_no=held.shard_no)


def renew(db: Database, held: Sequence[Claim], *, lease_s: float) -> None:
    """Extend the leases; one that was lost stays lost, because its token no longer matches."""
    if not held:
        return
    with db.begin() as connection:
        connection.execute(
            f"""update shard s set lease_until = now() + make_interval(secs => %(lease)s)
               from unnest(cast(%(jobs)s as bigint[]), cast(%(nos)s as int[]), cast(%(tokens)s as bigint[]))
                 as h (job_id, shard_no, token)
               where s.job_id = h.job_id and s.shard_no = h.shard_no and s.token = h.token and {LEASED_SHARD:s}""",
            {
                "lease": lease_s,
                "jobs": [c.job_id for c in held],
                "nos": [c.shard_no for c in held],
                "tokens": [c.token for c in held],
            },
        )


FREED = f"case when {OPEN_JOB:j} then {ShardState.READY} else {ShardState.CANCELLED} end"  # `j`: the shard's job
HAND_BACK = f"""update shard s set lease_until = null, {{change}}, state = {FREED}
               from job j
               where s.job_id = %(job)s and s.shard_no = %(no)s and s.token = %(token)s and {LEASED_SHARD:s} and j.id = s.job_id"""


def release(db: Database, held: Claim) -> bool:
    """Hand an unfinished shard back (drain): it is due at once and the claim does not count. False if the claim was lost."""
    with db.begin() as connection:
        return bool(connection.execute(HAND_BACK.format(change="claims = greatest(s.claims - 1, 0)"), key_of(held)).rowcount)


def fail(db: Database, held: Claim, *, error: str, delay_s: float) -> bool:
    """Hand a shard back to be tried again after `delay_s`; `error` never holds a text. False if the claim was lost."""
    change = """claims = greatest(s.claims - 1, 0), failures = s.failures + 1, published_at = null, last_error = %(error)s,
                next_attempt_at = now() + make_interval(secs => %(delay)s)"""
    with db.begin() as connection:
        return bool(
            connection.execute(HAND_BACK.format(change=change), key_of(held) | {"error": error[:500], "delay": delay_s}).rowcount
        )


def postpone(db: Database, held: Claim, *, delay_s: float, error: str | None = None) -> bool:
    """Hand a shard back, due again after `delay_s`; neither a claim nor a failure counts. False if the claim was lost."""
    change = """claims = greatest(s.claims - 1, 0), published_at = null, last_error = coalesce(%(error)s, s.last_error),
                next_attempt_at = now() + make_interval(secs => %(delay)s)"""
    with db.begin() as connection:
        return bool(connection.execute(HAND_BACK.format(change=change), key_of(held) | {"delay": delay_s, "error": error}).rowcount)


def begin_giving_up(db: Database, held: Claim) -> int:
    """Count one more try of a dispatcher to end the shard, and return the count. Committed first, so that a crash counts too."""
    with db.begin() as connection:
        begun: int | None = connection.scalar(
            """update shard set give_ups = give_ups + 1 where job_id = %(job)s and shard_no = %(no)s and token = %(token)s
               returning give_ups""",
            key_of(held),
        )
        return begun or 0


def holder(pid: int) -> str:
    """Return the name that the process with this id on this host writes into its claims."""
    return f"worker@{socket.gethostname()}:{pid}"


def expire_leases_of(db: Database, worker: str) -> int:
    """Expire the leases of a dead worker, for `rescue`; return how many. If it still lived, `rescue` would fence its work."""
    with db.session() as connection:
        result = connection.execute(
            f"update shard set lease_until = now() where {LEASED_SHARD} and worker = %(worker)s and lease_until > now()",
            {"worker": worker},
        )
        return int(result.rowcount)


def overdue(db: Database, *, skip: Sequence[ShardKey] = (), limit: int = 100) -> list[ShardKey]:
    """Return leased shards whose lease is over."""
    with db.session() as connection:
        rows = connection.execute(
            f"""select s.job_id, s.shard_no from shard s where {LEASED_SHARD:s} and s.lease_until < now() and {NOT_SKIPPED}
                order by s.lease_until limit %(limit)s""",
            {"limit": limit, **keys_of(skip)},
        )
        return [(row.job_id, row.shard_no) for row in rows]


def rescue(db: Database, overdue: Sequence[ShardKey]) -> list[ShardKey]:
    """Take back those of these shards whose lease is over; return which."""
    with db.session() as connection:
        rows = connection.execute(
            f"""with x as materialized (
                 select s.job_id, s.shard_no from shard s where {LEASED_SHARD:s} and s.lease_until < now() and {AMONG}
                 for update skip locked)
               update shard s set state = {FREED}, lease_until = null,
                      published_at = null, last_error = 'lease expired: its worker ' || coalesce(s.worker, '?') || ' is gone'
               from x join job j on j.id = x.job_id
               where s.job_id = x.job_id and s.shard_no = x.shard_no returning s.job_id, s.shard_no""",
            keys_of(overdue),
        )
        return [(row.job_id, row.shard_no) for row in rows]


def keys_of(keys: Sequence[ShardKey]) -> dict[str, object]:
    """Return the keys as parameters of `AMONG` and `NOT_SKIPPED`."""
    return {"of_jobs": [job for job, _ in keys], "of_nos": [no for _, no in keys]}


def key_of(held: Claim) -> dict[str, object]:
    """Return the claim as parameters of `HAND_BACK`."""
    return {"job": held.job_id, "no": held.shard_no, "token": held.token}


def states(db: Database, job_id: int) -> dict[ShardState, int]:
    """Return how many shards of the job are in each state."""
    with db.begin() as connection:
        rows = connection.execute("select state, count(*) as n from shard where job_id = %(job)s group by state", {"job": job_id})
        return {ShardState(row.state): row.n for row in rows}
