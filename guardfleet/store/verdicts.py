"""Verdicts on their way out: known ones for the cache, pages while a job runs, all of them for an export."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from guardfleet.errors import RejectedError
from guardfleet.plan import Plan
from guardfleet.rationale import PROBABILITIES, rationale
from guardfleet.store.database import Database
from guardfleet.store.jobs import JobView
from guardfleet.store.shards import Claim
from guardfleet.verdict import CATEGORY_CHOICES, Category, Judgement, Model, ServedBy, Severity, category_names

EXPORT_PAGE = 5_000
PARTITION = 100  # rows the driver turns into Python at once: other threads get a turn between
FIELDS = (
    "seq",
    "id",
    "severity",
    "categories",
    "refusal",
    "p_safe",
    "p_controversial",
    "p_unsafe",
    "rationale",
    "served_by",
    "raw",
    "error",
    "error_detail",
    "model",
    "revision",
    "policy",
    "is_demo",
    "input_tokens",
    "output_tokens",
    "done_at",
    "metadata",
    "category_probabilities",
    "evidence",
)
UNKNOWN_ODDS = 255  # of a byte; 254 is 1
COLUMNS = """v.seq, v.id, v.severity, v.categories, v.refusal, v.probabilities, v.served_by, v.raw, v.error, v.error_detail,
             v.model_id, v.input_tokens, v.output_tokens, v.done_at, v.metadata, v.category_odds, v.evidence"""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reader of partial results stands: the ordinal of a finished shard, and the last text seen in it."""

    ord: int = 0
    seq: int = -1


def register_model(db: Database, model: Model) -> int:
    """The id under which verdicts refer to what judged them."""
    values = {"name": model.name, "revision": model.revision, "policy": model.policy, "demo": model.is_demo}
    with db.begin() as connection:
        connection.execute(
            text("""insert into model (name, revision, policy, is_demo)
                    select :name, :revision, :policy, :demo where not exists (
                      select from model where name = :name and revision = :revision and policy = :policy)
                    on conflict do nothing"""),
            values,
        )
        found: int = connection.execute(
            text("select id from model where name = :name and revision = :revision and policy = :policy"), values
        ).scalar_one()
        return found


def require_served(db: Database, plan: Plan) -> None:
    """Raise RejectedError when the plan names a model that no worker has ever served: nobody would take the job."""
    asked = [name for name in (plan.model, plan.second_model) if name is not None]
    if not asked:
        return
    with db.begin() as connection:
        served = set(connection.execute(text("select distinct name from model where name <> 'nobody'")).scalars())
    for name in asked:
        if name not in served:
            names = ", ".join(sorted(served)) or "none so far"
            raise RejectedError(f"no worker has served a model {name!r} yet: start one with it. Served were: {names}.")


def known(db: Database, digests: Sequence[bytes], held: Claim, *, model_id: int, max_age_hours: float) -> dict[bytes, Judgement]:
    """Judgements of the same whole texts by the same model and policy: of the claim's own job, and of others not older than that.

    Digests are per tenant, so none is crossed where the workers do not make them for all.
    """
    if not digests:
        return {}
    with db.begin() as connection:
        rows = connection.execute(
            text("""select distinct on (digest) digest, severity, categories, refusal, probabilities, raw,
                           input_tokens, output_tokens, category_odds, evidence, job_id = :job as is_own
                    from verdict
                    where digest = any(:digests) and served_by = 0 and severity < 3 and model_id = :model
                      and (evidence is null or not evidence ? 'left_out')
                      and day >= least(cast(:day as date), ((now() - make_interval(secs => :age)) at time zone 'utc')::date)
                      and (job_id = :job or done_at > now() - make_interval(secs => :age))
                    order by digest, is_own desc, done_at desc"""),
            {
                "digests": [uuid.UUID(bytes=digest) for digest in digests],
                "model": model_id,
                "age": max_age_hours * 3600,
                "job": held.job_id,
                "day": held.day,
            },
        )
        return {
            row.digest.bytes: Judgement(
                Severity(row.severity),
                Category(row.categories),
                row.refusal,
                ServedBy.DUPLICATE if row.is_own else ServedBy.CACHE,
                _probabilities(row.probabilities),
                row.raw,
                row.input_tokens,
                row.output_tokens,
                category_odds=_odds(row.category_odds),
                evidence=row.evidence,
            )
            for row in rows
        }


def page(db: Database, job: JobView, cursor: Cursor, *, limit: int) -> tuple[list[dict[str, Any]], Cursor]:
    """Up to `limit` verdicts after `cursor`, in the order their shards were committed: nothing is skipped, nothing comes twice.

    Works while the job runs; an empty page of a finished job is the end. Only shards that the page can need are looked into: those
    before which fewer than `limit` texts lie, the one that the cursor stands in not counted.
    """
    with db.session() as connection:
        found = (
            connection.execute(
                text(f"""select d.ord, {COLUMNS}
                     from (select ord, first_seq, n,
                                  sum(n) filter (where ord > :ord) over (
                                    order by ord rows between unbounded preceding and 1 preceding) as before
                           from (select ord, first_seq, n from shard_done
                                 where job_id = :job and ord >= :ord order by ord limit 1 + :limit) next) d
                     cross join lateral (
                       select * from verdict
                       where job_id = :job and day = :day and seq >= d.first_seq and seq < d.first_seq + d.n
                         and seq > case when d.ord = :ord then :seq else -1 end
                       order by seq limit :limit) v
                     where coalesce(d.before, 0) < :limit
                     order by d.ord, v.seq limit :limit"""),
                {"job": job.id, "day": job.day, "ord": cursor.ord, "seq": cursor.seq, "limit": limit},
            )
            .mappings()
            .partitions(PARTITION)
        )
        rows = [row for part in found for row in part]
        models = _models(connection) if rows else {}
    if not rows:
        return [], cursor
    return [_plain(row, models[row["model_id"]]) for row in rows], Cursor(rows[-1]["ord"], rows[-1]["seq"])


def export(db: Database, job: JobView, *, min_severity: int = 0) -> Iterator[dict[str, Any]]:
    """All verdicts in input order, in short transactions; flat in memory. Errors count above every severity."""
    last = -1
    while True:
        with db.begin() as connection:
            rows = (
                connection.execute(
                    text(f"""select 0 as ord, {COLUMNS} from verdict v
                         where v.job_id = :job and v.day = :day and v.seq > :last and v.severity >= :least
                         order by v.seq limit :limit"""),
                    {"job": job.id, "day": job.day, "last": last, "least": min_severity, "limit": EXPORT_PAGE},
                )
                .mappings()
                .all()
            )
            models = _models(connection)
        yield from (_plain(row, models[row["model_id"]]) for row in rows)
        if len(rows) < EXPORT_PAGE:
            return
        last = rows[-1]["seq"]


def rejections(db: Database, job: JobView) -> Iterator[dict[str, Any]]:
    """Refused input lines in order."""
    last = -1
    while True:
        with db.begin() as connection:
            rows = (
                connection.execute(
                    text("""select line, code, detail from rejection where job_id = :job and line > :last
                        order by line limit :limit"""),
                    {"job": job.id, "last": last, "limit": EXPORT_PAGE},
                )
                .mappings()
                .all()
            )
        yield from (dict(row) for row in rows)
        if len(rows) < EXPORT_PAGE:
            return
        last = rows[-1]["line"]


def _models(connection: Connection) -> dict[int, Model]:
    """Every model there is: a handful."""
    rows = connection.execute(text("select id, name, revision, policy, is_demo from model"))
    return {row.id: Model(row.name, row.revision, row.policy, row.is_demo) for row in rows}


def _plain(row: Any, model: Model) -> dict[str, Any]:
    """A verdict in words, as the view `verdicts` has it: in Python that takes a third of the time."""
    (_, seq, row_id, severity, categories, refusal, probabilities, served_by, raw, error, error_detail, _, n_in, n_out, done_at,
     metadata, category_odds, evidence) = row.values()  # fmt: skip
    p_safe, p_controversial, p_unsafe = (PROBABILITIES[byte] for byte in probabilities) if probabilities else (None, None, None)
    who = f"{model.name}@{model.revision[:12]}"
    return {
        "seq": seq,
        "id": row_id,
        "severity": Severity(severity).label,
        "categories": category_names(Category(categories)) if categories else [],
        "refusal": refusal,
        "p_safe": p_safe,
        "p_controversial": p_controversial,
        "p_unsafe": p_unsafe,
        "rationale": rationale(severity, categories, served_by, refusal, probabilities, evidence, error, error_detail, who),
        "served_by": ServedBy(served_by).label,
        "raw": raw,
        "error": error,
        "error_detail": error_detail,
        "model": model.name,
        "revision": model.revision,
        "policy": model.policy,
        "is_demo": model.is_demo,
        "input_tokens": n_in,
        "output_tokens": n_out,
        "done_at": done_at,
        "metadata": metadata,
        "category_probabilities": _named(category_odds),
        "evidence": evidence,
    }


def _named(odds: bytes | None) -> dict[str, float] | None:
    """Category to probability; what rounds to nothing and what is not known is left out."""
    if odds is None:
        return None
    return {
        name: round(value / 254, 3) for name, value in zip(CATEGORY_CHOICES, bytes(odds), strict=True) if 0 < value < UNKNOWN_ODDS
    }


def _probabilities(packed: bytes | None) -> tuple[float, float, float] | None:
    if packed is None:
        return None
    safe, controversial, unsafe = (value / 255 for value in bytes(packed))
    return safe, controversial, unsafe


def _odds(packed: bytes | None) -> tuple[float | None, ...] | None:
    return None if packed is None else tuple(None if value == UNKNOWN_ODDS else value / 254 for value in bytes(packed))
