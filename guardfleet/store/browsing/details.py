"""What is known of verdicts beside themselves: all of it of one, models and decisions of a page of them."""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from guardfleet.domain import ids
from guardfleet.domain.decision import Decision
from guardfleet.domain.verdict import Model
from guardfleet.errors import NotFoundError
from guardfleet.store import models, verdicts
from guardfleet.store.browsing.pages import Hit
from guardfleet.store.labels import labels
from guardfleet.store.labels.labels import Stored
from guardfleet.store.policy import decisions
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.verdicts.encoding import StoredVerdict
from guardfleet.verdicts.rendering import fields

OF_ONE = """d.job_id = %(job)s and d.first_seq <= %(seq)s and d.first_seq + d.n > %(seq)s and d.first_seq = (
              select max(first_seq) from decision where job_id = %(job)s and first_seq <= %(seq)s)"""


class Job(NamedTuple):
    """The job of one verdict."""

    id: int
    public_id: uuid.UUID
    tenant_id: int
    day: dt.date
    name: str
    purged_at: dt.datetime | None
    keeps_nothing: bool
    detectors: list[str] | None

    @property
    def label(self) -> str:
        """Its public id."""
        return ids.JOB.of(self.public_id)


class Made(NamedTuple):
    """What one version of a policy decided of a text."""

    decision: Decision
    is_in_force: bool
    is_shadow: bool
    was_activated: bool  # whether it ever was: otherwise nobody is told what it decides
    decided_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Detail:
    """One verdict with all that is known of it; `said`: as every face tells it."""

    job: Job
    row: StoredVerdict
    model: Model
    said: dict[str, Any]
    decided: Sequence[Made]
    labels: Sequence[Stored]


def one(db: Database, tenant_id: int, public_id: uuid.UUID, seq: int) -> Detail:
    """Return a verdict. Raises NotFoundError if the tenant has no such job, or the job no such verdict yet."""
    found = job(db, tenant_id, public_id)
    page = verdicts.of_texts(db, found.id, found.day, [seq])
    if not page.rows:
        raise NotFoundError(f"{found.label} has no verdict of text {seq}.")
    (row,) = page.rows
    with db.session() as connection:
        detected = verdicts.detections_in(db, connection, found.id, found.day, [seq]) if found.detectors else {}
        decided = _decided(db, connection, found.id, seq)
    in_force = next((made.decision for made in decided if made.is_in_force), None)
    model = page.models[row.model_id]
    said = fields(row, model, in_force, detected.get(seq))
    return Detail(found, row, model, said, decided, labels.of_text(db, tenant_id, found.id, seq))


def job(db: Database, tenant_id: int, public_id: uuid.UUID) -> Job:
    """Return the job of a verdict. Raises NotFoundError, for another tenant's too."""
    with db.session() as connection:
        row = connection.execute(
            f"select {', '.join(Job._fields)} from job where public_id = %(job)s and tenant_id = %(tenant)s",
            {"job": public_id, "tenant": tenant_id},
        ).fetchone()
    if row is None:
        raise NotFoundError(f"there is no job {ids.JOB.of(public_id)}.")
    return Job._make(row)


def of_hits(db: Database, hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """Return what a page shows of each of these verdicts: `rendering.FIELDS`, and its job."""
    if not hits:
        return []
    shards = list({(hit.job.id, hit.first_seq): hit for hit in hits}.values())
    with db.session() as connection:
        known = models.known(db, connection, {hit.row.model_id for hit in hits})
        rows = connection.execute(
            f"""select s.job_id, s.first_seq, f.policy_id, f.outcomes
                from unnest(%(jobs)s::int8[], %(firsts)s::int4[]) s (job_id, first_seq)
                cross join lateral {decisions.ONE_IN_FORCE} f""",
            {"jobs": [hit.job.id for hit in shards], "firsts": [hit.first_seq for hit in shards]},
        ).fetchall()
        decided = {(row.job_id, row.first_seq): (decisions.words(db, connection, row.policy_id), row.outcomes) for row in rows}
    return [_shown(hit, known[hit.row.model_id], decided.get((hit.job.id, hit.first_seq))) for hit in hits]


def _shown(hit: Hit, model: Model, decided: tuple[Any, bytes] | None) -> dict[str, Any]:
    decision = None if decided is None else decided[0][decided[1][hit.row.seq - hit.first_seq]]
    return {"job": hit.job, **fields(hit.row, model, decision)}


def _decided(db: Database, connection: Connection, job_id: int, seq: int) -> list[Made]:
    """Return what each version decided of a text: the one in force, then the others, the newest first."""
    rows = connection.execute(
        f"""select d.policy_id, get_byte(d.outcomes, %(seq)s - d.first_seq) as outcome, d.shadow, d.decided_at,
                   p.activated_at is not null as was_activated, d.policy_id = (
                     select d.policy_id from decision d join policy p on p.id = d.policy_id
                     where {OF_ONE} and not d.shadow and p.activated_at is not null order by {decisions.NEWEST} limit 1) as in_force
            from decision d join policy p on p.id = d.policy_id join job j on j.id = d.job_id join tenant t on t.id = j.tenant_id
            where {OF_ONE} order by in_force desc nulls last, d.decided_at desc, d.policy_id desc""",
        {"job": job_id, "seq": seq},
    ).fetchall()
    return [
        Made(
            decisions.words(db, connection, row.policy_id)[row.outcome],
            bool(row.in_force),
            row.shadow,
            row.was_activated,
            row.decided_at,
        )
        for row in rows
    ]
