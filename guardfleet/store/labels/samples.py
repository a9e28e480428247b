"""Samples: the columns that texts are drawn by, and what was drawn."""

import datetime as dt
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from guardfleet.domain import ids
from guardfleet.errors import NotFoundError
from guardfleet.store import audit
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Connection, Database, copy_rows
from guardfleet.store.words import ERASED_VERDICT

SELECT = """select s.id, s.public_id, s.job_id, j.public_id as job_public_id, s.design, s.n, s.seed, s.created_at
            from sample s join job j on j.id = s.job_id"""
COLUMNS = {
    "sample_id": "int8", "ord": "int4", "job_id": "int8", "seq": "int4", "probability": "float8", "stratum": "text",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample as its tenant sees it."""

    id: int
    public_id: uuid.UUID
    job_id: int
    job_public_id: uuid.UUID
    design: dict[str, Any]
    n: int
    seed: int
    created_at: dt.datetime

    @property
    def label(self) -> str:
        """Its public id."""
        return ids.SAMPLE.of(self.public_id)

    def as_dict(self) -> dict[str, Any]:
        """Return it as every face shows it."""
        return {
            "id": self.label,
            "object": "sample",
            "batch_id": ids.BATCH.of(self.job_public_id),
            **self.design,
            "texts": self.n,
            "seed": self.seed,
            "created_at": int(self.created_at.timestamp()),
        }


class Drawn(NamedTuple):
    """A text of a sample."""

    ord: int
    seq: int
    probability: float
    stratum: str | None


class Columns(NamedTuple):
    """Of a shard's texts: the value of the slices' metadata key, and the model that gave the verdict (two bytes each)."""

    slices: list[str | None]
    models: bytes


def columns(db: Database, among: Sequence[Any], key: str | None) -> dict[int, Columns]:
    """Return the columns of these shards of one job, by their first text."""
    slices = "null::text" if key is None else "v.metadata ->> %(key)s"
    with db.session() as connection:
        rows = connection.cursor(binary=True).execute(
            f"""select s.first_seq, r.slices, r.models
                from unnest(%(jobs)s::int8[], %(days)s::date[], %(firsts)s::int4[], %(ns)s::int4[]) s (job_id, day, first_seq, n)
                cross join lateral (
                  select array_agg(x.slice) as slices, string_agg(x.model, '') as models from (
                    select {slices} as slice, int2send(v.model_id) as model from verdict v
                    where v.job_id = s.job_id and v.day = s.day and v.seq >= s.first_seq and v.seq < s.first_seq + s.n
                    order by v.seq) x) r""",
            {
                "key": key, "jobs": [one.job_id for one in among], "days": [one.day for one in among],
                "firsts": [one.first_seq for one in among], "ns": [one.n for one in among],
            },
        )  # fmt: skip
        return {row.first_seq: Columns(row.slices, row.models) for row in rows}


def erased(db: Database, job: JobView) -> list[int]:
    """Return the job's texts that were erased, which nobody can label."""
    if not job.erased:
        return []
    with db.session() as connection:
        return connection.scalars(
            f"select v.seq from verdict v where v.job_id = %(job)s and v.day = %(day)s and {ERASED_VERDICT}",
            {"job": job.id, "day": job.day},
        )


def second_model(db: Database, job: JobView) -> bool:
    """Return whether a second model was asked about some texts of the job."""
    with db.session() as connection:
        asked: bool = connection.scalar(
            "select second_model is not null and escalated + sampled > 0 from job where id = %(job)s", {"job": job.id}
        )
    return asked


def create(
    db: Database,
    job: JobView,
    design: dict[str, Any],
    texts: Sequence[tuple[int, float, str | None]],
    *,
    seed: int,
    also: Callable[[Connection, uuid.UUID], None] = lambda connection, public_id: None,
) -> Sample:
    """Store a sample: its texts in their order, each with place, probability and stratum. `also` runs in the same transaction."""
    with db.begin() as connection:
        made: Any = connection.execute(
            """insert into sample (tenant_id, job_id, design, n, seed)
               select tenant_id, id, %(design)s, %(n)s, %(seed)s from job where id = %(job)s returning id, public_id""",
            {"job": job.id, "design": Jsonb(design), "n": len(texts), "seed": seed},
        ).fetchone()
        if made is None:
            raise NotFoundError(f"{job.label} was deleted.")
        copy_rows(connection, "sample_text", COLUMNS, ((made.id, at, job.id, *text) for at, text in enumerate(texts)))
        label = ids.SAMPLE.of(made.public_id)
        audit.record(connection, job.tenant_id, "sample.create", label, job=job.label, texts=len(texts), by=design["by"])
        also(connection, made.public_id)
    return get(db, made.public_id, tenant_id=job.tenant_id)


def get(db: Database, public_id: uuid.UUID, *, tenant_id: int) -> Sample:
    """Return the sample. Raises NotFoundError, for another tenant's too."""
    with db.session() as connection:
        found = connection.cursor(row_factory=class_row(Sample)).execute(
            f"{SELECT} where s.public_id = %(id)s and s.tenant_id = %(tenant)s", {"id": public_id, "tenant": tenant_id}
        ).fetchone()  # fmt: skip
    if found is None:
        raise NotFoundError(ids.SAMPLE.unknown)
    return found


def known(db: Database, tenant_id: int, public_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, int]:
    """Return the numbers of those of these samples that the tenant has."""
    with db.session() as connection:
        rows = connection.execute(
            "select id, public_id from sample where public_id = any(%(ids)s) and tenant_id = %(tenant)s",
            {"ids": list(public_ids), "tenant": tenant_id},
        )
        return {row.public_id: row.id for row in rows}


def having(db: Database, pairs: Sequence[tuple[int, int, int]]) -> set[tuple[int, int, int]]:
    """Return those of these (sample, job, place) that are texts of their sample."""
    samples, jobs, seqs = map(list, zip(*pairs, strict=True)) if pairs else ([], [], [])
    with db.session() as connection:
        rows = connection.execute(
            """select t.sample_id, t.job_id, t.seq from sample_text t
               join unnest(%(samples)s::int8[], %(jobs)s::int8[], %(seqs)s::int4[]) u (sample_id, job_id, seq)
                 on t.job_id = u.job_id and t.seq = u.seq and t.sample_id = u.sample_id""",
            {"samples": samples, "jobs": jobs, "seqs": seqs},
        )
        return {tuple(row) for row in rows}


def sizes(db: Database, job_id: int) -> dict[int, int]:
    """Return how many texts each sample of the job has."""
    with db.session() as connection:
        return {row.id: row.n for row in connection.execute("select id, n from sample where job_id = %(job)s", {"job": job_id})}


def page(db: Database, sample: Sample, *, after: int, limit: int) -> list[Drawn]:
    """Return up to `limit` of its texts after a place, in its order."""
    with db.session() as connection:
        rows = connection.execute(
            """select ord, seq, probability, stratum from sample_text
               where sample_id = %(sample)s and ord > %(after)s order by ord limit %(limit)s""",
            {"sample": sample.id, "after": after, "limit": limit},
        )
        return [Drawn(*row) for row in rows]


def pages(db: Database, sample: Sample, *, size: int = 1000) -> Iterator[list[Drawn]]:
    """Yield all of its texts, a page at a time."""
    after = -1
    while found := page(db, sample, after=after, limit=size):
        yield found
        after = found[-1].ord
