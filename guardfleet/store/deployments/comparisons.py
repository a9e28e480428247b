"""Counts of texts that two models judged, and what follows from them for the one that is being tried."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from guardfleet.domain import ids
from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.domain.states import DeploymentState
from guardfleet.sampling.agreement import Compared, Ruling, ruling
from guardfleet.store import audit
from guardfleet.store.deployments.deployments import ENDED, MOST_REASON
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.words import CANARY_DEPLOYMENT, COMPARED_DEPLOYMENT, public_id

MOST_PLACES = 200  # of disagreements that are kept for a deployment
ROLLED = f"state = {DeploymentState.ROLLING}, changed_at = clock_timestamp()"
SEVERITY, LABEL = "severity", "label"  # the subject that every compared text counts under, of the guard and of other detectors


class Cell(NamedTuple):
    """What is counted: the words of both models on one subject, in texts of one language."""

    language: str
    subject: str
    live: str
    candidate: str


class Place(NamedTuple):
    """A text that the models judged differently."""

    job_id: int
    seq: int
    live: str
    candidate: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts that were compared together. Seconds are of devices; `skipped` texts were of the share, and nobody had time."""

    cells: Mapping[Cell, int] = field(default_factory=dict)
    places: Sequence[Place] = ()
    compared: Compared = field(default_factory=Compared)
    live_s: float = 0.0
    candidate_s: float = 0.0
    skipped: int = 0


def add(db: Database, deployment_id: int, batch: Batch) -> Ruling:
    """Add the counts, and advance or halt a canary on what they say now; return what was ruled.

    Adds nothing once the deployment is neither a canary nor a shadow.
    """
    found = batch.compared
    with db.begin() as connection:
        row = connection.execute(
            f"""update deployment set compared = compared + %(texts)s, agreed = agreed + %(agreed)s,
                       live_errors = live_errors + %(live_errors)s, errors = errors + %(errors)s,
                       live_s = live_s + %(live_s)s, candidate_s = candidate_s + %(candidate_s)s, skipped = skipped + %(skipped)s
                where id = %(id)s and {COMPARED_DEPLOYMENT}
                returning detector, state, compared, agreed, live_errors, errors, canary_texts, min_agreement""",
            {
                "id": deployment_id, "texts": found.texts, "agreed": found.agreed, "live_errors": found.live_errors,
                "errors": found.errors, "live_s": batch.live_s, "candidate_s": batch.candidate_s, "skipped": batch.skipped,
            },
        ).fetchone()  # fmt: skip
        if row is None:
            return Ruling.WAIT
        _count(connection, deployment_id, batch)
        if row.state != DeploymentState.CANARY:
            return Ruling.WAIT
        so_far = Compared(row.compared, row.agreed, row.live_errors, row.errors)
        ruled, reason = ruling(so_far, wanted_texts=row.canary_texts, min_agreement=row.min_agreement)
        if ruled is not Ruling.WAIT:
            _advance(connection, deployment_id, row.detector, ruled, reason)
    return ruled


def _count(connection: Connection, deployment_id: int, batch: Batch) -> None:
    connection.cursor().executemany(
        """insert into comparison (deployment_id, language, subject, live, candidate, n)
           values (%(id)s, %(language)s, %(subject)s, %(live)s, %(candidate)s, %(n)s)
           on conflict (deployment_id, language, subject, live, candidate) do update set n = comparison.n + excluded.n""",
        [{"id": deployment_id, "n": n, **cell._asdict()} for cell, n in sorted(batch.cells.items())],
    )
    kept: int = connection.scalar("select count(*) from disagreement where deployment_id = %(id)s", {"id": deployment_id})
    connection.cursor().executemany(
        """insert into disagreement (deployment_id, job_id, seq, live, candidate)
           values (%(id)s, %(job_id)s, %(seq)s, %(live)s, %(candidate)s) on conflict do nothing""",
        [{"id": deployment_id, **place._asdict()} for place in batch.places[: max(0, MOST_PLACES - kept)]],
    )


def _advance(connection: Connection, deployment_id: int, detector: str, ruled: Ruling, reason: str | None) -> None:
    is_halt = ruled is Ruling.HALT
    change = f"state = {DeploymentState.HALTED}, reason = %(reason)s, {ENDED}" if is_halt else ROLLED
    connection.execute(
        f"update deployment set {change} where id = %(id)s and {CANARY_DEPLOYMENT}",
        {"id": deployment_id, "reason": (reason or "")[:MOST_REASON]},
    )
    action = "deployment.halt" if is_halt else "deployment.advance"
    audit.record(connection, DEFAULT_TENANT, action, f"deployment_{deployment_id}", detector=detector, state="canary")


def cells(db: Database, deployment_id: int) -> dict[Cell, int]:
    """Return what was counted."""
    with db.session() as connection:
        rows = connection.execute(
            "select language, subject, live, candidate, n from comparison where deployment_id = %(id)s", {"id": deployment_id}
        )
        return {Cell(*row[:4]): row.n for row in rows}


def places(db: Database, deployment_id: int, *, limit: int, tenant_id: int | None = None) -> list[tuple[str, int, str, str]]:
    """Return some texts that were judged differently: job, number of the text, and both words. Jobs that are gone are left out.

    `tenant_id`: those of one tenant's jobs alone.
    """
    with db.session() as connection:
        rows = connection.execute(
            f"""select {public_id(ids.JOB, "j.public_id")} as job, d.seq, d.live, d.candidate
                from disagreement d join job j on j.id = d.job_id where d.deployment_id = %(id)s
                  and (cast(%(tenant)s as bigint) is null or j.tenant_id = %(tenant)s)
                order by d.job_id, d.seq limit %(limit)s""",
            {"id": deployment_id, "limit": limit, "tenant": tenant_id},
        )
        return [(row.job, row.seq, row.live, row.candidate) for row in rows]
