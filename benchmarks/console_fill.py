"""Millions of stored verdicts for the benchmarks of the console's pages: jobs of every size, decisions, detections, kept texts."""

import datetime as dt
from dataclasses import dataclass
from typing import Any

from guardfleet.domain.verdict import NOBODY, Model
from guardfleet.policy.evaluation import DEFAULT
from guardfleet.policy.reading import read
from guardfleet.security.encryption import Keyring
from guardfleet.store import keys, models
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.partitions import ensure_day
from guardfleet.store.policy import policies
from guardfleet.store.postgres.database import Database, unhurried
from tests.services.detected import FINDER
from tests.services.stored import new_job, submit

SHARD = 1000
NEEDLE = "needle"  # the id of one row of all
SHARES = (0.25, 0.25, 0.25)  # of all rows, of the three greatest jobs
MEDIUM, SMALL, SINGLE = 200_000, 1000, 1  # rows of the other jobs
SINGLES = 20_000  # jobs of one text that somebody waited for
KEPT = 20_000  # texts of the job whose texts can be searched
POLICY = """name: house
default: allow
rules:
  - {id: look, action: review, when: {severity: controversial}}
  - {id: stop, action: block, when: {severity: unsafe}}
"""
JOBS = """insert into job (public_id, tenant_id, day, state, name, key_id, total, done, next_ord, created_at, started_at,
                           progressed_at, finished_at, purged_at, online, detectors)
          select gen_random_uuid(), %(tenant)s, %(day)s, 2, 'job ' || %(n)s || '-' || i, 'k', %(n)s, %(n)s,
                 (%(n)s + %(shard)s - 1) / %(shard)s, now(), now(), now(), now(), now(), %(n)s = 1,
                 case when %(detectors)s then array['guard', 'finder'] end
          from generate_series(1, %(jobs)s) i returning id"""
VERDICTS = """
  insert into verdict (job_id, seq, day, severity, categories, served_by, model_id, probabilities, input_tokens, output_tokens,
                       done_at, id, metadata, error)
  select j.id, i, j.day, s.severity, case when s.severity in (1, 2) then 1 << (i %% 8) else 0 end,
         case when s.severity in (3, -1) then 4 else 0 end, %(model)s,
         case when s.severity between 0 and 2 then
           set_byte(set_byte(set_byte('\\x000000', 0, s.p), 1, least(s.q, 255 - s.p)), 2, 255 - s.p - least(s.q, 255 - s.p)) end,
         20 + i %% 60, 10, j.day + interval '1 minute' * (i / %(shard)s), 'row-' || j.id || '-' || i,
         case when i %% 2 = 0 then '{"lang": "en"}'::jsonb end, case when s.severity = 3 then 'engine_failed' end
  from unnest(%(jobs)s::int8[]) x join job j on j.id = x cross join lateral generate_series(0, j.total - 1) i
  cross join lateral (
    select case when h.h < 900 then 0 when h.h < 960 then 1 when h.h < 996 then 2 when h.h < 999 then 3 else -1 end::int2
             as severity,
           case when h.h < 900 then 200 + h.h %% 56 else h.h %% 120 end as p, h.h %% 30 as q
    from (select abs(hashint8(j.id * 1000003 + i)) %% 1000 as h) h) s"""
AROUND = """
  with d as (
    insert into shard_done (job_id, ord, shard_no, first_seq, n)
    select j.id, k + 1, k, k * %(shard)s, least(%(shard)s, j.total - k * %(shard)s)
    from job j cross join lateral generate_series(0, (j.total - 1) / %(shard)s) k where j.id = any(%(jobs)s)),
  x as (
    insert into decision (job_id, first_seq, policy_id, n, outcomes, allowed, flagged, reviewed, blocked, shadow)
    select v.job_id, v.seq / %(shard)s * %(shard)s, %(policy)s, count(*),
           string_agg(case v.severity when 1 then '\\x00'::bytea when 2 then '\\x01'::bytea else %(default)s end, ''
                      order by v.seq),
           count(*) filter (where v.severity not in (1, 2)), 0, count(*) filter (where v.severity = 1),
           count(*) filter (where v.severity = 2), false
    from verdict v where v.job_id = any(%(jobs)s) group by 1, 2)
  update job j set safe = c.safe, controversial = c.controversial, unsafe = c.unsafe, error = c.error, unrated = c.unrated,
         started_at = c.first, progressed_at = c.last, finished_at = c.last
  from (select job_id, count(*) filter (where severity = 0) as safe, count(*) filter (where severity = 1) as controversial,
               count(*) filter (where severity = 2) as unsafe, count(*) filter (where severity = 3) as error,
               count(*) filter (where severity = -1) as unrated, min(done_at) as first, max(done_at) as last
        from verdict where job_id = any(%(jobs)s) group by 1) c where j.id = c.job_id"""
DETECTIONS = """
  with d as (
    insert into detection (job_id, seq, place, day, model_id, outcome, label, scores, served_by, input_tokens, output_tokens)
    select v.job_id, v.seq, 1, v.day, %(model)s, 0, (v.seq %% 500 = 7)::int,
           case when v.seq %% 500 = 7 then array[0.25, 0.75] else array[0.75, 0.25] end, 0, 9, 0
    from verdict v where v.job_id = any(%(jobs)s) returning job_id, seq, label)
  insert into detected (job_id, first_seq, place, model_id, n, unlabelled, too_short, error, labelled)
  select job_id, seq / %(shard)s * %(shard)s, 1, %(model)s, count(*), 0, 0, 0,
         array[count(*) filter (where label = 0), count(*) filter (where label = 1)] from d group by 1, 2"""
RARE = """update verdict set id = %(needle)s, categories = 128, severity = 2, error = null, served_by = 0
          where job_id = %(job)s and seq = %(seq)s"""


@dataclass(frozen=True)
class Filled:
    """What is there: the rows of the tenant `default`, a great job, the job with kept texts, and one with detections."""

    rows: int
    great: str
    kept: str
    detected: str


def filled(db: Database, keyring: Keyring, rows: int) -> Filled:
    """Fill a migrated database with about so many verdicts of the tenant `default`, and a tenth as many of another tenant."""
    model = models.register(db, Model("m", "0123456789abcdef", "p"))
    models.register(db, NOBODY)
    finder = models.register(db, FINDER)
    version, _ = policies.add(db, 1, read(POLICY))
    policies.activate(db, version)
    told = {"shard": SHARD, "model": model, "policy": version.id, "default": bytes([DEFAULT])}
    keys.create(db, keyring, tenant="elsewhere", name="other", scopes=("batches:read",))
    tenant = keys.tenant_id(db, "elsewhere")
    with db.begin() as connection:
        today = connection.scalar("select current_date")
    days = [today - dt.timedelta(days=ago) for ago in range(6)]  # jobs are newer, the smaller they are
    greats = [_jobs(db, 1, 1, max(SHARD, int(rows * share)), day, told) for share, day in zip(SHARES, reversed(days), strict=False)]
    left = rows - sum(max(SHARD, int(rows * share)) for share in SHARES)
    medium = min(MEDIUM, max(SHARD, left // 10))
    found = _jobs(db, 1, 1, medium, days[2], told, finder=finder)
    for _ in range(max(0, left * 4 // 5 // medium - 1)):
        _jobs(db, 1, 1, medium, days[2], told)
    _jobs(db, 1, max(1, left // 5 // SMALL), SMALL, days[1], told)
    _jobs(db, 1, min(SINGLES, rows // 100), SINGLE, today, told)
    _jobs(db, tenant, 1, max(SHARD, rows // 10), days[3], told)
    kept = _kept(db, keyring, min(KEPT, rows), told)
    with db.begin() as connection:
        connection.execute(RARE, {"needle": NEEDLE, "job": greats[0][0], "seq": rows // 8})
    with unhurried(db) as connection:
        connection.execute("set statement_timeout = 0")
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")  # what is measured was written long ago
        total = connection.scalar("select sum(done) from job where tenant_id = 1")
    return Filled(int(total), _label(db, greats[1][0]), kept.label, _label(db, found[0]))


def _jobs(
    db: Database, tenant: int, jobs: int, rows: int, day: dt.date, told: dict[str, Any], *, finder: int | None = None
) -> list[int]:
    """Make so many ended jobs of so many rows, and return their numbers."""
    with unhurried(db) as connection, connection.transaction():
        connection.execute("set local statement_timeout = 0")
        ensure_day(connection, day)
        values = {"shard": SHARD, "tenant": tenant, "day": day, "n": rows, "jobs": jobs, "detectors": finder is not None}
        made = [row.id for row in connection.execute(JOBS, values)]
        connection.execute(VERDICTS, told | {"jobs": made})
        connection.execute(AROUND, told | {"jobs": made})
        if finder is not None:
            connection.execute(DETECTIONS, told | {"jobs": made, "model": finder})
    return made


def _kept(db: Database, keyring: Keyring, n: int, told: dict[str, Any]) -> JobView:
    """Submit a job, and judge it, in bulk; its texts are kept."""
    job = submit(db, keyring, n, shard_texts=SHARD, new=new_job(name="kept"))
    with db.begin() as connection:
        connection.execute(
            "update job set done = total, next_ord = (total - 1) / %(shard)s + 1 where id = %(job)s",
            {"job": job.id, "shard": SHARD},
        )
        connection.execute("update shard set state = 2 where job_id = %(job)s", {"job": job.id})
        connection.execute(VERDICTS, told | {"jobs": [job.id]})
        connection.execute(AROUND, told | {"jobs": [job.id]})
        connection.execute("update job set state = 2 where id = %(job)s", {"job": job.id})
    return views.get(db, job.public_id)


def _label(db: Database, job_id: int) -> str:
    return views.get_by_id(db, job_id).label
