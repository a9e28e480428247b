"""Reading jobs. `intake` creates them, `control` changes them."""

import datetime as dt
import math
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import args_row

from guardfleet.domain import ids
from guardfleet.domain.detection import Outcome
from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.domain.lanes import Lane
from guardfleet.domain.plan import Plan
from guardfleet.domain.states import JobState
from guardfleet.domain.verdict import GUARD
from guardfleet.errors import NotFoundError
from guardfleet.policy.document import Action
from guardfleet.store import detections
from guardfleet.store.policy import decisions
from guardfleet.store.postgres.database import Database
from guardfleet.store.words import GOOD_JOB

PACE_S = 60.0  # finish() averages the pace over about this long
STANDSTILL = 1e-3  # texts/s; at or below this there is no estimate
QUIET_S = 5.0  # keep showing the ETA for at least this long after the last verdict


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as one read by its key shows it."""

    id: int
    public_id: uuid.UUID
    tenant_id: int
    name: str
    day: dt.date
    state: JobState
    total: int
    rejected: int
    done: int
    safe: int
    controversial: int
    unsafe: int
    error: int
    unrated: int
    saved: int
    next_ord: int
    created_at: dt.datetime
    sealed_at: dt.datetime | None
    finished_at: dt.datetime | None
    reason: str | None
    metadata: dict[str, Any] | None
    webhook_metadata: dict[str, Any] | None
    model: str | None
    models: list[str]  # all models that judged it, each named as in `model`
    is_demo: bool
    first_model: str | None
    second_model: str | None
    sure: float
    sample: float
    long_texts: str | None
    detectors: list[str] | None
    detector_cascades: list[str] | None  # second detectors, as `plan.DetectorCascade` reads them
    escalated: int
    sampled: int
    agreed: int
    lane: Lane
    priority: int
    strict: bool
    paused_at: dt.datetime | None
    started_at: dt.datetime | None
    progressed_at: dt.datetime | None
    pace: float
    endpoint: str
    completion_window: str
    input_file_id: uuid.UUID | None
    reading: dict[str, Any] | None  # how that file is read; None: as lines of a batch
    expires_at: dt.datetime | None
    cancelling_at: dt.datetime | None
    ends_as: int
    purged_at: dt.datetime | None
    erased: int  # texts erased on request
    device_s: float  # its texts' share of the devices' time
    first_id: int | None  # of a retry: the first job, unless that was deleted
    retry_of: uuid.UUID | None  # that job's public id
    retries: list[uuid.UUID]  # the jobs that judge its failed texts again, oldest first
    detected: dict[str, dict[str, int]] | None  # texts by how each detector ended with them; None: the guard alone was asked
    escalations: dict[str, dict[str, int]] | None  # by detector, texts that went on to a second one; None: none is asked
    actions: dict[str, int] | None  # texts by what the policy in force says to do, mild to grave; None: no policy decided of any
    seen_at: dt.datetime  # when it was read, by the server's clock

    @property
    def label(self) -> str:
        """Its public id."""
        return ids.JOB.of(self.public_id)

    @property
    def origin_id(self) -> int:
        """The job whose texts it judges: of a retry the first one, else its own."""
        return self.id if self.first_id is None else self.first_id

    @property
    def is_paused(self) -> bool:
        """Whether its owner has paused it and it has not ended."""
        return self.paused_at is not None and not self.state.is_final

    @property
    def request_counts(self) -> dict[str, int]:
        """Lines as OpenAI counts them. A refused line has failed, and so has one that the guard was not asked about."""
        without = self.error + self.unrated
        return {"total": self.total + self.rejected, "completed": self.done - without, "failed": without + self.rejected}

    @property
    def asks_guard(self) -> bool:
        """Whether its texts get verdicts."""
        return self.detectors is None or GUARD in self.detectors

    @property
    def severities(self) -> dict[str, int]:
        """Verdicts by severity; `unrated` only where the guard was not asked of all."""
        counts = {"safe": self.safe, "controversial": self.controversial, "unsafe": self.unsafe, "error": self.error}
        return counts | {"unrated": self.unrated} if self.unrated else counts

    @property
    def plan(self) -> Plan:
        """How it is judged, as workers read it."""
        return Plan(
            self.first_model,
            self.second_model,
            self.sure,
            self.sample,
            self.long_texts,
            tuple(self.detectors or (GUARD,)),
            tuple(self.detector_cascades or ()),
        )

    @property
    def cascades(self) -> dict[str, dict[str, Any]]:
        """Of each detector with a second one: which, when it is asked, and how many texts went on to it so far."""
        plan, out = self.plan, {}
        for entry in plan.detectors:
            if (cascade := plan.cascade_of(entry)) is not None:
                counts = (self.escalations or {}).get(entry, {"escalated": 0, "sampled": 0, "agreed": 0})
                sure = {"confidence_threshold": round(plan.sure_of(cascade), 6), "audit_fraction": round(self.sample, 6)}
                out[entry] = {"escalate_to": cascade.second, **sure, **counts}
        return out

    @property
    def failed_detections(self) -> int:
        """Texts, counted for each detector, of which it could not say anything."""
        return sum(ends.get(Outcome.ERROR.label, 0) for ends in (self.detected or {}).values())

    def cost(self, price_per_device_hour: float | None) -> float | None:
        """Return what its device seconds cost; None without a price."""
        return None if price_per_device_hour is None else self.device_s / 3600 * price_per_device_hour

    @property
    def texts_per_s(self) -> float:
        """Texts judged per second, over about the last minute; falls to 0 while the job makes no progress, and is 0 in a pause."""
        if self.started_at is None or self.idle_s is None or self.is_paused:
            return 0.0
        age_s = max(1.0, (self.seen_at - self.started_at).total_seconds())
        # The average starts at 0, so divide by the weight it has gathered (the bias correction of an exponential average).
        return self.pace * math.exp(-self.idle_s / PACE_S) / -math.expm1(-age_s / PACE_S)

    @property
    def eta_s(self) -> float | None:
        """Seconds until the last verdict at the present pace; None while the pace or the number of texts is unknown.

        None too once no verdict has come for longer than the rest should have taken: then the pace says nothing.
        """
        rate = self.texts_per_s
        if self.state is not JobState.RUNNING or self.is_paused or self.idle_s is None or rate <= STANDSTILL:
            return None
        left_s = (self.total - self.done) / rate
        return left_s if self.idle_s < max(left_s, QUIET_S) else None

    @property
    def idle_s(self) -> float | None:
        """Seconds since its last verdicts; None before the first."""
        return max(0.0, (self.seen_at - self.progressed_at).total_seconds()) if self.progressed_at else None


# Fields of JobView that are not columns of `job`.
NAME = "m.name || '@' || left(m.revision, 12)"
OF_SEVERAL = "case when cardinality(j.models) > 1 then (select {0} from model m where m.id = any(j.models)) else {1} end"
MADE = {
    "seen_at": "now()",
    "first_id": "(select o.id from job o where o.id = j.retry_of)",
    "retry_of": "(select o.public_id from job o where o.id = j.retry_of)",
    "retries": "array(select r.public_id from job r where r.retry_of = j.id order by r.id)",
    "actions": decisions.BY_ACTION,
    "detected": detections.BY_DETECTOR,
    "escalations": detections.ESCALATED,
    "model": NAME,
    "models": OF_SEVERAL.format(f"array_agg({NAME} order by m.id)", f"array_remove(array[{NAME}], null)"),
    "is_demo": OF_SEVERAL.format("bool_or(m.is_demo)", "coalesce(m.is_demo, false)"),
}
SELECT = f"""select {", ".join(f"{MADE.get(name, f'j.{name}')} as {name}" for name in JobView.__slots__)}
             from job j left join model m on m.id = j.model_id """


def public_ids(db: Database, jobs: Iterable[int]) -> dict[int, uuid.UUID]:
    """Return the public id of each of these jobs that exists."""
    with db.session() as connection:
        rows = connection.execute("select id, public_id from job where id = any(%(ids)s)", {"ids": list(jobs)})
        return {row.id: row.public_id for row in rows}


def labels(db: Database, jobs: Iterable[int]) -> dict[int, str]:
    """Return the same as users see and send it."""
    return {job: ids.JOB.of(public_id) for job, public_id in public_ids(db, jobs).items()}


def get(db: Database, public_id: uuid.UUID, *, tenant_id: int = DEFAULT_TENANT) -> JobView:
    """Return the job. Raises NotFoundError, for another tenant's job too."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=args_row(_view))
        job = cursor.execute(
            SELECT + "where j.public_id = %(id)s and j.tenant_id = %(tenant)s", {"id": public_id, "tenant": tenant_id}
        ).fetchone()
    if job is None:
        raise NotFoundError(f"there is no job {ids.JOB.of(public_id)}.")
    return job


def page(
    db: Database,
    *,
    tenant_id: int,
    after: uuid.UUID | None,
    limit: int,
    states: Sequence[int] | None = None,
    name: str | None = None,
) -> list[JobView]:
    """Return up to `limit` of the tenant's jobs older than the named one, newest first, filtered by state and part of the name."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=args_row(_view))
        return cursor.execute(
            SELECT
            + """where j.tenant_id = %(tenant)s and not j.online
                   and (%(after)s::uuid is null
                        or j.id < (select id from job where public_id = %(after)s::uuid and tenant_id = %(tenant)s))
                   and (%(states)s::int2[] is null or j.state = any(%(states)s::int2[]))
                   and (%(name)s::text is null or strpos(lower(j.name), lower(%(name)s::text)) > 0)
                 order by j.id desc limit %(limit)s""",
            {
                "tenant": tenant_id,
                "after": after,
                "limit": limit,
                "states": None if states is None else list(states),
                "name": name,
            },
        ).fetchall()


def get_by_id(db: Database, job_id: int) -> JobView:
    """Return the job with this internal id, whoever owns it: for guardfleet's own processes."""
    with db.session() as connection:
        (job,) = connection.cursor(row_factory=args_row(_view)).execute(SELECT + "where j.id = %(id)s", {"id": job_id})
        return job


def get_all(db: Database, job_ids: Sequence[int]) -> dict[int, JobView]:
    """Return those of these jobs that exist, whoever owns them, by their internal ids."""
    with db.session() as connection:
        cursor = connection.cursor(row_factory=args_row(_view))
        cursor.execute(SELECT + "where j.id = any(%(ids)s::int8[])", {"ids": list(job_ids)})
        return {job.id: job for job in cursor}


def find(db: Database, fingerprint: bytes, *, tenant_id: int = DEFAULT_TENANT) -> JobView | None:
    """Return the newest job of the same submission that is running or completed; None if there is none."""
    with db.begin() as connection:
        cursor = connection.cursor(row_factory=args_row(_view))
        return cursor.execute(
            SELECT
            + f"""where j.tenant_id = %(tenant)s and j.fingerprint = %(fingerprint)s and {GOOD_JOB:j}
                 order by j.id desc limit 1""",
            {"tenant": tenant_id, "fingerprint": fingerprint},
        ).fetchone()


def _view(*values: Any) -> JobView:
    """Make the JobView of a row of SELECT."""
    known = dict(zip(JobView.__slots__, values, strict=True))
    known["state"], known["lane"] = JobState(known["state"]), Lane(known["lane"])
    for name in ("sure", "sample"):
        known[name] = round(known[name], 6)  # stored with seven digits: 0.9 comes back as 0.89999998
    if known["actions"] is not None:  # PostgreSQL sorts the members of an object by their length
        known["actions"] = {action.label: known["actions"][action.label] for action in Action}
    return JobView(**known)
