"""What a job's page counts of verdicts: all of a small job; of a large one the first texts of shards, evenly spaced.

Every statement reads shards by their place, so a page costs the same for ten million texts as for ten thousand.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from guardfleet.domain.detection import Outcome
from guardfleet.domain.verdict import Severity
from guardfleet.policy.document import LANGUAGE_KEYS, SOURCE_KEY
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.store.words import FLAGGED_VERDICT
from guardfleet.verdicts.encoding import severity_and_categories

MOST_TEXTS = 2_000  # looked at for one page, whose figures are then good to a hundredth; 5,000 took twice as long
FROM_EACH = 20  # texts of a shard of a job that has more: neighbours in an input are often alike
MOST_FLAGGED = 10_000  # in which errors are counted by code
MOST_FAILED = 100  # shards in which those of detectors are
KEYS_FROM = 500  # texts whose metadata tell which keys there are
MOST_KEYS = 50
# The order and the limit keep the planner at the primary key: joined freely, it read the whole job for each shard.
VERDICTS = f"""unnest(%(firsts)s::int4[], %(ns)s::int4[]) s (first_seq, n) cross join lateral (
                select x.metadata, x.severity from verdict x
                where x.job_id = %(job)s and x.day = %(day)s and x.seq >= s.first_seq and x.seq < s.first_seq + s.n
                order by x.seq limit {MOST_TEXTS}) v"""


@dataclass(frozen=True, slots=True)
class Errors:
    """Errors by code: of verdicts, and of each detector by its name; `is_all` unless there are more than were looked at."""

    by_code: dict[str, int]
    of_detectors: dict[tuple[str, str], int]
    is_all: bool


def shards(db: Database, job: JobView) -> list[Any]:
    """Return about MOST_TEXTS texts that have verdicts, as parts of shards: all, or the first FROM_EACH of evenly spaced ones."""
    if not job.next_ord:
        return []
    is_all = job.done <= MOST_TEXTS
    n = job.next_ord if is_all else min(job.next_ord, MOST_TEXTS // FROM_EACH)
    with db.session() as connection:
        return connection.execute(
            """select job_id, %(day)s::date as day, first_seq, least(n, %(most)s)::int4 as n from shard_done
               where job_id = %(job)s and ord = any(%(ords)s) order by first_seq""",
            {
                "job": job.id, "day": job.day, "ords": [1 + at * job.next_ord // n for at in range(n)],
                "most": MOST_TEXTS if is_all else FROM_EACH,
            },
        ).fetchall()  # fmt: skip


def slices(db: Database, job: JobView, among: Sequence[Any], key: str | None) -> dict[str, Counter[tuple[str | None, Severity]]]:
    """Count the texts of these shards by language, by source, and by `key` of their metadata, each with their severity."""
    languages = ", ".join(f"v.metadata ->> '{each}'" for each in LANGUAGE_KEYS)
    with db.session() as connection:
        rows = connection.execute(
            f"""select t.language, t.source, t.chosen, t.severity, count(*) as n,
                       grouping(t.language) = 0 as of_language, grouping(t.source) = 0 as of_source
                from (select coalesce({languages}) as language, v.metadata ->> '{SOURCE_KEY}' as source,
                             v.metadata ->> %(key)s::text as chosen, v.severity from {VERDICTS}) t
                group by grouping sets ((t.language, t.severity), (t.source, t.severity), (t.chosen, t.severity))""",
            _values(job, among) | {"key": key},
        ).fetchall()
    found: dict[str, Counter[tuple[str | None, Severity]]] = {"language": Counter(), "source": Counter(), "chosen": Counter()}
    for row in rows:
        name = "language" if row.of_language else "source" if row.of_source else "chosen"
        severity, _ = severity_and_categories(row.severity, 0)
        found[name][getattr(row, name), severity] += row.n
    return found


def metadata_keys(db: Database, job: JobView, among: Sequence[Any]) -> list[str]:
    """Return the keys that the metadata of the first texts of these shards have, by name."""
    with db.session() as connection:
        return connection.scalars(
            f"""select distinct k from (select v.metadata from {VERDICTS} limit %(texts)s) t
                cross join lateral jsonb_object_keys(case jsonb_typeof(t.metadata) when 'object' then t.metadata end) k
                order by k limit %(keys)s""",
            _values(job, among) | {"texts": KEYS_FROM, "keys": MOST_KEYS},
        )


def errors(db: Database, job: JobView) -> Errors:
    """Count the job's errors by code."""
    by_code, of_detectors = _failed(db, job), _failed_detections(db, job)
    is_all = job.controversial + job.unsafe + job.error <= MOST_FLAGGED
    return Errors(by_code, of_detectors, is_all=is_all and sum(of_detectors.values()) >= job.failed_detections)


def _failed(db: Database, job: JobView) -> dict[str, int]:
    if not job.error:
        return {}
    with db.session() as connection:
        rows = connection.execute(
            f"""select coalesce(t.error, 'unreadable') as code, count(*) as n
                from (select severity, error from verdict where job_id = %(job)s and day = %(day)s and {FLAGGED_VERDICT}
                      order by seq limit %(most)s) t
                where t.severity >= {Severity.ERROR} group by 1 order by 2 desc, 1""",
            {"job": job.id, "day": job.day, "most": MOST_FLAGGED},
        ).fetchall()
    return {row.code: row.n for row in rows}


def _failed_detections(db: Database, job: JobView) -> dict[tuple[str, str], int]:
    """Count errors by detector and code, in the first shards that have any."""
    if not job.failed_detections:
        return {}
    with db.session() as connection:
        rows = connection.execute(
            f"""select s.place, coalesce(d.error, 'unreadable') as code, count(*) as n
                from (select first_seq, n, place from detected where job_id = %(job)s and error > 0
                      order by first_seq, place limit {MOST_FAILED}) s
                cross join lateral (
                  select x.error from detection x
                  where x.job_id = %(job)s and x.day = %(day)s and x.seq >= s.first_seq and x.seq < s.first_seq + s.n
                    and x.place = s.place and x.outcome = {int(Outcome.ERROR)} order by x.seq limit s.n) d
                group by 1, 2 order by 3 desc, 1, 2""",
            {"job": job.id, "day": job.day},
        ).fetchall()
    names = job.detectors or []
    return {(names[row.place], row.code): row.n for row in rows}


def _values(job: JobView, among: Sequence[Any]) -> dict[str, Any]:
    return {
        "job": job.id, "day": job.day, "firsts": [one.first_seq for one in among], "ns": [one.n for one in among],
    }  # fmt: skip
