"""Human labels: stored once however often they are sent, listed, counted, and read with the samples that they were made for.

Invariant: rows are only added; only the author of one that a review has just stored takes it back (`retract`). A tenant's labels
are written by one transaction at a time, so that the same label sent twice at once is stored once.
"""

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg.rows import class_row

from guardfleet.domain import ids
from guardfleet.domain.labels import BY_DESIGN, Label, Source
from guardfleet.domain.verdict import Category, Severity, category_names
from guardfleet.store import audit
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.store.words import ERASED_VERDICT, REUSABLE_VERDICT, public_id

NO_SLICE = "(none)"  # of texts without the key
SELECT = f"""select l.id, {public_id(ids.BATCH, "j.public_id")} as batch_id, l.seq, l.source, l.severity, l.categories, l.author,
                    {public_id(ids.SAMPLE, "s.public_id")} as sample_id, l.probability, l.created_at
             from label l join job j on j.id = l.job_id left join sample s on s.id = l.sample_id"""


class Given(NamedTuple):
    """A label to store; `sample`: the one that it was made for, None for the newest that has the text."""

    job_id: int
    seq: int
    source: Source
    author: str
    severity: Severity
    categories: Category
    sample: int | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A label as its tenant sees it."""

    id: int
    batch_id: str
    seq: int
    source: int
    severity: int
    categories: int
    author: str
    sample_id: str | None
    probability: float | None
    created_at: dt.datetime

    def as_dict(self) -> dict[str, Any]:
        """Return it as every face shows it."""
        return {
            "id": f"label_{self.id}",
            "batch_id": self.batch_id,
            "seq": self.seq,
            "source": Source(self.source).label,
            "author": self.author,
            "label": Severity(self.severity).label,
            "categories": category_names(Category(self.categories)),
            "sample_id": self.sample_id,
            "inclusion_probability": self.probability,
            "created_at": self.created_at.isoformat(),
        }


class Count(NamedTuple):
    """How many labels of a source there are, and how many of them samples asked for."""

    source: int
    severity: int
    labels: int
    texts: int
    by_design: int


def jobs_of(db: Database, tenant_id: int, public_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, tuple[int, dt.date]]:
    """Return number and day of those of these jobs that the tenant has."""
    with db.session() as connection:
        found = connection.execute(
            "select id, public_id, day from job where public_id = any(%(ids)s) and tenant_id = %(tenant)s",
            {"ids": list(public_ids), "tenant": tenant_id},
        )
        return {row.public_id: (row.id, row.day) for row in found}


def places(db: Database, job_id: int, day: dt.date, *, seqs: Sequence[int], row_ids: Sequence[str]) -> list[tuple[int, str | None]]:
    """Return place and caller's id of the job's texts with these places or these ids; none of one that was erased.

    Ids take a look at all of the job's rows.
    """
    values = {"job": job_id, "day": day, "seqs": list(seqs), "ids": list(row_ids)}
    of_job = f"select seq, id from verdict v where job_id = %(job)s and day = %(day)s and {ERASED_VERDICT} is not true"
    with db.session() as connection:
        found = [tuple(row) for row in connection.execute(f"{of_job} and seq = any(%(seqs)s::int4[])", values)] if seqs else []
        if row_ids:
            found += [tuple(row) for row in connection.execute(f"{of_job} and id = any(%(ids)s::text[])", values)]
    return found


def add(db: Database, tenant_id: int, given: Sequence[Given]) -> int:
    """Store labels, those that their author has given already left out; record it for each job; return how many are new."""
    if not given:
        return 0
    with db.begin() as connection:
        return len(put(connection, tenant_id, given))


def put(connection: Connection, tenant_id: int, given: Sequence[Given]) -> list[int]:
    """Do the same within a transaction; return the numbers of the new labels."""
    _lock(connection, tenant_id)
    drawn = _drawn(connection, tenant_id, given)
    known = _newest(connection, given)
    new = []
    for one, (sample, probability) in zip(given, drawn, strict=True):
        key, said = one[:4], (one.severity, one.categories, sample)
        if known.get(key) != said:
            known[key] = said
            new.append((tenant_id, *one[:6], sample, probability))
    return _insert(connection, tenant_id, new)


def retract(connection: Connection, tenant_id: int, label_id: int) -> None:
    """Take a label back that its author has just given, and record it; safe for one that is gone."""
    _lock(connection, tenant_id)
    values = {"id": label_id, "tenant": tenant_id}
    if connection.execute("delete from label where id = %(id)s and tenant_id = %(tenant)s", values).rowcount:
        audit.record(connection, tenant_id, "label.retract", f"label_{label_id}")


def _lock(connection: Connection, tenant_id: int) -> None:
    connection.execute("select from tenant where id = %(tenant)s for no key update", {"tenant": tenant_id})


def _drawn(connection: Connection, tenant_id: int, given: Sequence[Given]) -> list[tuple[int | None, float | None]]:
    """Return the sample that each label was made for, and the probability of its text."""
    found = connection.execute(
        """select x.id, x.probability
           from unnest(%(jobs)s::int8[], %(seqs)s::int4[], %(samples)s::int8[], %(made)s::bool[])
             with ordinality u (job_id, seq, sample_id, is_made, place)
           left join lateral (
             select s.id, t.probability from sample_text t join sample s on s.id = t.sample_id
             where t.job_id = u.job_id and t.seq = u.seq and s.tenant_id = %(tenant)s and u.is_made
               and (u.sample_id is null or s.id = u.sample_id)
             order by s.id desc limit 1) x on true
           order by u.place""",
        {
            "tenant": tenant_id, "jobs": [one.job_id for one in given], "seqs": [one.seq for one in given],
            "samples": [one.sample for one in given], "made": [one.source in BY_DESIGN for one in given],
        },
    )  # fmt: skip
    return [(row.id, row.probability) for row in found]


def _newest(connection: Connection, given: Sequence[Given]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Return what the authors of these labels said last of the same texts."""
    found = connection.execute(
        """select distinct on (l.job_id, l.seq, l.source, l.author)
                  l.job_id, l.seq, l.source, l.author, l.severity, l.categories, l.sample_id
           from (select distinct * from unnest(%(jobs)s::int8[], %(seqs)s::int4[]) t (job_id, seq)) u
           join label l on l.job_id = u.job_id and l.seq = u.seq
           order by l.job_id, l.seq, l.source, l.author, l.id desc""",
        {"jobs": [one.job_id for one in given], "seqs": [one.seq for one in given]},
    )
    return {tuple(row[:4]): tuple(row[4:]) for row in found}


def _insert(connection: Connection, tenant_id: int, new: Sequence[Sequence[Any]]) -> list[int]:
    if not new:
        return []
    names = ("tenant_id", "job_id", "seq", "source", "author", "severity", "categories", "sample_id", "probability")
    rows = connection.execute(
        f"""insert into label ({", ".join(names)})
            select {", ".join(names)} from unnest(%(tenant_id)s::int8[], %(job_id)s::int8[], %(seq)s::int4[], %(source)s::int2[],
              %(author)s::text[], %(severity)s::int2[], %(categories)s::int2[], %(sample_id)s::int8[], %(probability)s::float8[])
              with ordinality u ({", ".join(names)}, place) order by place
            returning id, job_id""",
        dict(zip(names, map(list, zip(*new, strict=True)), strict=True)),
    ).fetchall()
    made = connection.execute(
        f"select id, {public_id(ids.JOB)} as label from job where id = any(%(ids)s)", {"ids": list({row.job_id for row in rows})}
    ).fetchall()
    for job in made:
        of_job = [row.id for row in rows if row.job_id == job.id]
        audit.record(connection, tenant_id, "label.import", f"label_{max(of_job)}", job=job.label, labels=len(of_job))
    return [row.id for row in rows]


def page(db: Database, tenant_id: int, *, job_id: int | None = None, after: int = 0, limit: int) -> list[Stored]:
    """Return up to `limit` of the tenant's labels after one of them, in the order they were stored."""
    of_job = "" if job_id is None else "and l.job_id = %(job)s"
    with db.session() as connection:
        return connection.cursor(row_factory=class_row(Stored)).execute(
            f"{SELECT} where l.tenant_id = %(tenant)s {of_job} and l.id > %(after)s order by l.id limit %(limit)s",
            {"tenant": tenant_id, "job": job_id, "after": after, "limit": limit},
        ).fetchall()  # fmt: skip


def of_text(db: Database, tenant_id: int, job_id: int, seq: int) -> list[Stored]:
    """Return all labels of a text, in the order they were stored."""
    with db.session() as connection:
        return connection.cursor(row_factory=class_row(Stored)).execute(
            f"{SELECT} where l.tenant_id = %(tenant)s and l.job_id = %(job)s and l.seq = %(seq)s order by l.id",
            {"tenant": tenant_id, "job": job_id, "seq": seq},
        ).fetchall()  # fmt: skip


def summary(db: Database, tenant_id: int, *, job_id: int | None = None) -> list[Count]:
    """Count the tenant's labels by source and severity."""
    with db.session() as connection:
        found = connection.execute(
            """select source, severity, count(*) as labels, count(distinct (job_id, seq)) as texts, count(sample_id) as by_design
               from label where tenant_id = %(tenant)s and (%(job)s::int8 is null or job_id = %(job)s::int8)
               group by 1, 2 order by 1 desc, 2""",
            {"tenant": tenant_id, "job": job_id},
        )
        return [Count(*row) for row in found]


def labelled(db: Database, job_id: int) -> int:
    """Return how many texts of the job have a label."""
    with db.session() as connection:
        found: int = connection.scalar("select count(distinct seq) from label where job_id = %(job)s", {"job": job_id})
    return found


class Asked(NamedTuple):
    """A labelled text of a sample: where, with which probability it was drawn, and all labels that it has."""

    seq: int
    sample_id: int
    probability: float
    slice: str | None  # of the sample, as key=value; None if it was not drawn by slices
    labels: list[Label]


def asked_for(db: Database, job_id: int) -> list[Asked]:
    """Return the texts whose label a sample asked for, once for each such sample, with all of their labels."""
    with db.session() as connection:
        rows = connection.execute(
            """select l.seq, l.id, l.source, l.author, l.severity, l.categories, l.sample_id, l.probability,
                      (s.design ->> 'slice') || '=' || coalesce(t.stratum, %(none)s) as slice
               from label l left join sample s on s.id = l.sample_id
               left join sample_text t on t.job_id = l.job_id and t.seq = l.seq and t.sample_id = l.sample_id
               where l.job_id = %(job)s and exists (
                 select from label d where d.job_id = l.job_id and d.seq = l.seq and d.sample_id is not null)
               order by l.seq, l.id""",
            {"job": job_id, "none": NO_SLICE},
        ).fetchall()
    of_text: dict[int, list[Label]] = {}
    drawn: dict[tuple[int, int], tuple[float, str | None]] = {}
    for row in rows:
        one = Label(row.id, Source(row.source), row.author, Severity(row.severity), Category(row.categories))
        of_text.setdefault(row.seq, []).append(one)
        if row.sample_id is not None:
            drawn[row.seq, row.sample_id] = row.probability, row.slice
    return [Asked(seq, sample, *how, of_text[seq]) for (seq, sample), how in drawn.items()]


def jobs_asked(db: Database, tenant_id: int, *, job_id: int | None, since: Any) -> Mapping[int, int]:
    """Return the jobs in this scope with labels that samples asked for, and how many texts with a verdict each has."""
    with db.session() as connection:
        found = connection.execute(
            """select j.id, j.done from job j
               where j.tenant_id = %(tenant)s and (%(job)s::int8 is null or j.id = %(job)s::int8)
                 and (%(since)s::timestamptz is null or j.created_at >= %(since)s::timestamptz)
                 and j.id in (select job_id from label where tenant_id = %(tenant)s and sample_id is not null)""",
            {"tenant": tenant_id, "job": job_id, "since": since},
        )
        return {row.id: row.done for row in found}


def of_digest(db: Database, tenant_id: int, digests: Sequence[bytes]) -> tuple[int, int] | None:
    """Return job and place of the tenant's newest verdict of a model for the text with one of these digests."""
    with db.session() as connection:
        found: Any = connection.execute(
            f"""select v.job_id, v.seq from verdict v join job j on j.id = v.job_id
                where v.digest = any(%(digests)s::uuid[]) and {REUSABLE_VERDICT} and j.tenant_id = %(tenant)s
                order by v.done_at desc limit 1""",
            {"digests": [uuid.UUID(bytes=digest) for digest in digests], "tenant": tenant_id},
        ).fetchone()
    return None if found is None else (found.job_id, found.seq)
