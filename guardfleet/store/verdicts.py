"""Reading verdicts: known ones for the cache, pages while a job runs, all of them for an export."""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from psycopg.rows import args_row

from guardfleet.domain.decision import Decision
from guardfleet.domain.verdict import Judgement, ServedBy, Severity
from guardfleet.policy.document import Action
from guardfleet.store import detections, models, reuse
from guardfleet.store.jobs.views import JobView
from guardfleet.store.policy import decisions
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.shards.leases import Claim
from guardfleet.store.words import REUSABLE_VERDICT
from guardfleet.verdicts.encoding import READ_COLUMNS, Codes, StoredVerdict, decode
from guardfleet.verdicts.filters import Filter
from guardfleet.verdicts.page import Cursor, Detections, Page

EXPORT_PAGE = 5_000
SHARDS_AT_ONCE = 32  # that a filtered page searches
MOST_CODE = 32_767  # of a smallint: a severity that this version does not know counts as an error
# `ord` is not a column of the table: each query provides its own.
COLUMNS = ", ".join("v.metadata::text" if name == "metadata" else f"v.{name}" for name in READ_COLUMNS if name != "ord")

KNOWN = f"""select distinct on (digest) digest, {reuse.IS_OWN}, input_tokens, output_tokens,
                  nullif(evidence - '{{notes,lists,more_hits,more_entries}}'::text[], '{{}}') as evidence,
                  {", ".join(Codes._fields)}
           from verdict
           where {REUSABLE_VERDICT} and {reuse.WHERE} {reuse.ORDER}"""


def known(db: Database, digests: Sequence[bytes], held: Claim, *, model_id: int, max_age_hours: float) -> dict[bytes, Judgement]:
    """Return judgements of the same whole texts by the same model and policy: the claim's own job's, and others' up to this age.

    Digests are per tenant, so no verdict crosses tenants unless the workers compute digests for all tenants together.
    """
    if not digests:
        return {}
    values = reuse.values(digests, held, model_id=model_id, max_age_hours=max_age_hours)
    with db.session() as connection:
        found = connection.cursor(row_factory=args_row(_known)).execute(KNOWN, values).fetchall()
    return {digest: judgement for digest, judgement in found if judgement.severity is not Severity.ERROR}


def _known(
    digest: uuid.UUID, is_own: bool, input_tokens: int, output_tokens: int, evidence: dict[str, Any] | None, *codes: Any
) -> tuple[bytes, Judgement]:
    return digest.bytes, replace(
        decode(codes),
        served_by=ServedBy.DUPLICATE if is_own else ServedBy.CACHE,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        evidence=evidence,
    )


def page(db: Database, job: JobView, cursor: Cursor, *, limit: int, wanted: Filter | None = None) -> Page:
    """Return up to `limit` verdicts after `cursor`, in the order their shards were committed, without gaps or repeats.

    Works while the job runs; an empty page of a finished job is the end. Reads only shards that the page can need: those with fewer
    than `limit` texts before them, not counting the shard of the cursor. With a filter, a page may be short or empty and still have
    more after it.
    """
    if wanted is not None:
        return _filtered(db, job, cursor, limit, wanted)
    with db.session() as connection:
        rows = read(
            connection,
            f"""select d.ord, {COLUMNS}
                from (select ord, first_seq, n,
                             sum(n) filter (where ord > %(ord)s) over (
                               order by ord rows between unbounded preceding and 1 preceding) as before
                      from (select ord, first_seq, n from shard_done
                            where job_id = %(job)s and ord >= %(ord)s order by ord limit 1 + %(limit)s) next) d
                cross join lateral (
                  select * from verdict
                  where job_id = %(job)s and day = %(day)s and seq >= d.first_seq and seq < d.first_seq + d.n
                    and seq > case when d.ord = %(ord)s then %(seq)s else -1 end
                  order by seq limit %(limit)s) v
                where coalesce(d.before, 0) < %(limit)s
                order by d.ord, v.seq limit %(limit)s""",
            {"job": job.id, "day": job.day, "ord": cursor.ord, "seq": cursor.seq, "limit": limit},
        )
        by_id, decided = models.known(db, connection, model_ids(rows)), _decided(db, connection, job.id, rows)
        detected = _detected(db, connection, job, rows)
    reached = Cursor(rows[-1].ord, rows[-1].seq) if rows else cursor
    return Page(rows, by_id, reached, len(rows) == limit, decisions=decided, detections=detected)


def _filtered(db: Database, job: JobView, cursor: Cursor, limit: int, wanted: Filter) -> Page:
    values: dict[str, Any] = {"job": job.id, "day": job.day, "ord": cursor.ord, "seq": cursor.seq, "limit": limit}
    labelled = detections.resolved(db, job.detectors, wanted.labelled)
    values |= {} if labelled is None else detections.values_of(job.detectors, labelled)
    with db.session() as connection:
        shards = connection.execute(
            f"""select ord, first_seq, n from shard_done where job_id = %(job)s and ord >= %(ord)s
                order by ord limit {SHARDS_AT_ONCE}""",
            values,
        ).fetchall()
        rows = read(
            connection,
            f"""select s.ord, {COLUMNS}
                from (select * from shard_done where job_id = %(job)s and ord between %(ord)s and %(last)s) s
                {"" if wanted.actions is None else f"cross join lateral {decisions.WITH_ACTION} f"}
                cross join lateral (
                  select * from verdict
                  where job_id = %(job)s and day = %(day)s and seq >= s.first_seq and seq < s.first_seq + s.n
                    and seq > case when s.ord = %(ord)s then %(seq)s else -1 end
                    {"" if wanted.actions is None else "and get_byte(f.outcomes, seq - s.first_seq) = any(f.wanted)"}
                    {"" if labelled is None else f"and {detections.IS_LABELLED}"}
                    and (severity = any(%(severities)s)
                         or %(errors)s and severity not between {Severity.UNRATED} and {Severity.ERROR})
                    and (%(categories)s = 0 or categories & %(categories)s <> 0)
                    and done_at >= to_timestamp(%(since)s)) v
                order by s.ord, v.seq limit %(limit)s""",
            values
            | {
                "last": shards[-1][0] if shards else -1,
                "severities": list(wanted.severities),
                "errors": Severity.ERROR in wanted.severities,
                "categories": wanted.categories,
                "since": wanted.since,
                "actions": [Action[name.upper()] for name in wanted.actions or ()],
            },
        )
        by_id, decided = models.known(db, connection, model_ids(rows)), _decided(db, connection, job.id, rows)
        detected = _detected(db, connection, job, rows)
    beside: dict[str, Any] = {"decisions": decided, "detections": detected}
    if len(rows) == limit:
        found = Page(rows, by_id, Cursor(rows[-1].ord, rows[-1].seq), has_more=True, **beside)
    else:
        reached = Cursor(shards[-1][0], shards[-1][1] + shards[-1][2] - 1) if shards else cursor
        found = Page(rows, by_id, reached, has_more=len(shards) == SHARDS_AT_ONCE, **beside)
    # Between both statements another policy may have been activated: nobody gets a text under an action that it does not have.
    of_labels = found if labelled is None else found.of_labels(labelled)
    return of_labels if wanted.actions is None else of_labels.of_actions(wanted.actions)


def in_order(db: Database, job: JobView, *, min_severity: int = 0, max_severity: int = Severity.ERROR) -> Iterator[Page]:
    """Yield all verdicts in input order, in short reads and constant memory. Errors count above every severity.

    Rows are chosen by the stored severity alone, unknown severities with the errors: a row within the range can still be read as an
    error because of its other columns.
    """
    least = min_severity or -MOST_CODE
    most = MOST_CODE if max_severity == Severity.ERROR else max_severity
    last = -1
    while True:
        with db.session() as connection:
            rows = read(
                connection,
                f"""select 0 as ord, {COLUMNS} from verdict v
                    where v.job_id = %(job)s and v.day = %(day)s and v.seq > %(last)s and v.severity between %(least)s and %(most)s
                    order by v.seq limit %(limit)s""",
                {"job": job.id, "day": job.day, "last": last, "least": least, "most": most, "limit": EXPORT_PAGE},
            )
            by_id, decided = models.known(db, connection, model_ids(rows)), _decided(db, connection, job.id, rows)
            detected = _detected(db, connection, job, rows)
        if rows:
            last = rows[-1].seq
            yield Page(rows, by_id, Cursor(0, last), decisions=decided, detections=detected)
        if len(rows) < EXPORT_PAGE:
            return


def metadata_keys(db: Database, job: JobView, *, limit: int) -> list[str]:
    """Return up to `limit` names of members of the texts' metadata, sorted. Reads all verdicts of the job."""
    with db.session() as connection:
        found = connection.scalars(
            """select distinct k from verdict v cross join lateral jsonb_object_keys(v.metadata) k
               where v.job_id = %(job)s and v.day = %(day)s and jsonb_typeof(v.metadata) = 'object' limit %(limit)s""",
            {"job": job.id, "day": job.day, "limit": limit},
        )
        return sorted(found)


def of_one_shard(db: Database, job_id: int, day: dt.date, *, with_detections: bool = False) -> Page:
    """Return all verdicts of a small job, in input order."""
    with db.session() as connection:
        rows = read(
            connection,
            f"select 0 as ord, {COLUMNS} from verdict v where v.job_id = %(job)s and v.day = %(day)s order by v.seq",
            {"job": job_id, "day": day},
        )
        by_id, decided = models.known(db, connection, model_ids(rows)), _decided(db, connection, job_id, rows)
        detected = detections_in(db, connection, job_id, day, [row.seq for row in rows]) if with_detections else None
        return Page(rows, by_id, Cursor(0, len(rows) - 1), decisions=decided, detections=detected)


def of_texts(db: Database, job_id: int, day: dt.date, seqs: Sequence[int]) -> Page:
    """Return the verdicts of these texts of a job, in the order asked for; one that is gone is left out."""
    statement = f"""select 0 as ord, {COLUMNS} from unnest(%(seqs)s::int4[]) with ordinality u (seq, place)
                    join verdict v on v.job_id = %(job)s and v.day = %(day)s and v.seq = u.seq order by u.place"""
    with db.session() as connection:
        rows = read(connection, statement, {"job": job_id, "day": day, "seqs": list(seqs)})
        by_id, decided = models.known(db, connection, model_ids(rows)), _decided(db, connection, job_id, rows)
        return Page(rows, by_id, Cursor(), decisions=decided)


def export(db: Database, job: JobView, *, min_severity: int = 0) -> Iterator[dict[str, Any]]:
    """Yield all verdicts in words, in input order: `rendering.FIELDS` of each."""
    for page in in_order(db, job, min_severity=min_severity):
        yield from page.fields()


def read(connection: Connection, statement: str, values: Mapping[str, Any]) -> list[StoredVerdict]:
    """Return the rows of a statement that selects an `ord` and COLUMNS."""
    return connection.cursor(row_factory=_stored).execute(statement, values).fetchall()


def _stored(_: object) -> Callable[[Sequence[Any]], StoredVerdict]:
    """Make rows an eighth faster than psycopg's `args_row(StoredVerdict)` does, over a page of a thousand."""
    return StoredVerdict._make


def model_ids(rows: Sequence[StoredVerdict]) -> set[int]:
    """Return the ids of the models that gave these verdicts."""
    return {row.model_id for row in rows}


def _decided(db: Database, connection: Connection, job_id: int, rows: Sequence[StoredVerdict]) -> list[Decision | None] | None:
    return decisions.of_texts(db, connection, job_id, [row.seq for row in rows])


def _detected(db: Database, connection: Connection, job: JobView, rows: Sequence[StoredVerdict]) -> Detections | None:
    """Return what detectors said of the rows' texts; None if the job asked none but the guard."""
    return None if job.detectors is None else detections_in(db, connection, job.id, job.day, [row.seq for row in rows])


def detections_in(db: Database, connection: Connection, job_id: int, day: dt.date, seqs: Sequence[int]) -> Detections:
    """Return what detectors said of these texts of a job."""
    found = detections.of_texts(connection, job_id, day, seqs)
    return detections.by_text(found, models.known(db, connection, {model_id for _, _, model_id, *_ in found}))
