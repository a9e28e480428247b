#!/usr/bin/env python3
"""Apply a policy to millions of stored verdicts: how long, killed on the way, with a client that polls meanwhile.

    python -m benchmarks.redecide [--texts 10000000] [--postgres URL] [--kills 5]

Fills a database of its own by one statement, simulates over a million, then runs `guardfleet redecide` in a process that is killed
`--kills` times at random moments and started again, and once more undisturbed by a policy of as many rules. A client reads pages of
1,000 results all the time. Checks in SQL that each text has one decision of each policy. The last line of stdout is one JSON.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from typing import Any

import psycopg

from guardfleet.domain.verdict import Model
from guardfleet.jobs.simulation import simulate
from guardfleet.policy.reading import read
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import migrate, models, verdicts
from guardfleet.store.jobs import views
from guardfleet.store.partitions import ensure_day
from guardfleet.store.policy import policies
from guardfleet.store.policy.decisions import Scope
from guardfleet.store.postgres.database import Database
from guardfleet.verdicts.page import Cursor
from tests.services.databases import database_on, unique
from tests.services.fixtures import POSTGRES, SECRET_KEY
from tests.services.stored import submit

SHARD = 1024
SIMULATED = 1_000_000
CATEGORIES = ("Violent", "PII", "Jailbreak", "Unethical Acts")
FILL = """insert into verdict (job_id, seq, day, severity, categories, served_by, model_id, probabilities, input_tokens,
                               output_tokens, id, metadata, category_odds)
          select %(job)s, i, %(day)s, s.severity, case s.severity when 0 then 0 else 1 << (i %% 9) end, 0, 1,
                 set_byte(set_byte('\\x000000', 0, 255 - s.p), 2, s.p), 20 + i %% 60, 10, 'id' || i,
                 case when i %% 2 = 0 then '{"lang": "en"}'::jsonb end, decode(repeat(lpad(to_hex(i %% 16), 2, '0'), 10), 'hex')
          from generate_series(%(start)s, %(end)s - 1) i
          cross join lateral (select case when i %% 10 < 8 then i %% 3 else hashint4(i) & 255 end as p,
                                     case when i %% 10 < 8 then 0 else i %% 10 - 7 end as severity) s"""


def policy(name: str, bound: float) -> str:
    """Return a policy of twenty rules."""
    rules = [
        f"  - {{id: r{at}, action: {('flag', 'review', 'block')[at % 3]}, when: {{severity: [unsafe, controversial],"
        f" category: [{CATEGORIES[at % 4]}], probability: {{not_safe: {{at_least: {bound - at * 0.02:.2f}}}}}}}}}"
        for at in range(20)
    ]
    return "\n".join([f"name: {name}", "default: allow", "rules:", *rules])


def filled(db: Database, keyring: Keyring, texts: int) -> Any:
    """Return a job with so many verdicts, as workers leave it."""
    models.register(db, Model("m", "r", "p"))
    job = submit(db, keyring, 1)
    with db.begin() as connection:
        ensure_day(connection, job.day)
    for start in range(0, texts, 1_000_000):
        with db.begin() as connection:
            connection.execute("set local statement_timeout = 0")
            connection.execute(FILL, {"job": job.id, "day": job.day, "start": start, "end": min(texts, start + 1_000_000)})
    with db.begin() as connection:
        connection.execute(
            """insert into shard_done (job_id, ord, shard_no, first_seq, n)
               select %(job)s, k + 1, k, k * %(shard)s, least(%(shard)s, %(texts)s - k * %(shard)s)
               from generate_series(0, (%(texts)s - 1) / %(shard)s) k""",
            {"job": job.id, "shard": SHARD, "texts": texts},
        )
        connection.execute(
            "update job set total = %(n)s, done = %(n)s, next_ord = (%(n)s - 1) / %(shard)s + 1 where id = %(job)s",
            {"job": job.id, "n": texts, "shard": SHARD},
        )
    with db.session() as connection:
        connection.execute("set statement_timeout = 0")
        connection.execute("vacuum analyze verdict")
        connection.execute("checkpoint")  # what is measured was written long ago
        connection.execute("reset statement_timeout")
    return views.get(db, job.public_id)


class Poller(threading.Thread):
    """Reads the status and pages of 1,000 results, again and again."""

    def __init__(self, url: str, job: Any) -> None:
        super().__init__(daemon=True)
        self._db, self._job = Database(url, pool_size=1), job
        self.ms: list[float] = []
        self.stopped = threading.Event()

    def run(self) -> None:
        """Poll until stopped."""
        rng = random.Random(1)
        while not self.stopped.wait(0.02):
            began = time.perf_counter()
            views.get(self._db, self._job.public_id)
            page = verdicts.page(self._db, self._job, Cursor(rng.randrange(1, self._job.next_ord), -1), limit=1000)
            sum(1 for _ in page.json_objects())
            self.ms.append((time.perf_counter() - began) * 1000)

    def p99(self) -> float:
        """Return the 99th percentile, in milliseconds."""
        return round(sorted(self.ms)[int(len(self.ms) * 0.99)], 1)


def redecide(settings: Settings, label: str, *, kill_after_s: float | None = None) -> tuple[float, bool]:
    """Run the command; return its seconds, and whether it was killed before its end."""
    command = [sys.executable, "-m", "guardfleet", "redecide", label, "--since", "1d"]
    began = time.monotonic()
    running = subprocess.Popen(command, env=os.environ | settings.as_environment(), stdout=sys.stderr)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        running.send_signal(signal.SIGKILL)
    status = running.wait()
    was_killed = kill_after_s is not None and status == -signal.SIGKILL
    assert was_killed or status == 0, status  # noqa: S101 - a run that failed has no figure
    return time.monotonic() - began, was_killed


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=10_000_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--postgres", default=POSTGRES)
    asked = parser.parse_args()
    name = unique()
    with psycopg.connect(asked.postgres, autocommit=True) as admin, tempfile.TemporaryDirectory() as folder:
        admin.execute(f"create database {name}")
        try:
            url = database_on(asked.postgres, name)
            settings = load_settings(database_url=url, broker_url="redis://127.0.0.1:1/0", secret_key=SECRET_KEY, data_dir=folder)
            with closing(Database(url)) as db:
                print(json.dumps(measured(db, settings, url, asked)))
        finally:
            admin.execute(f"drop database if exists {name} with (force)")


def measured(db: Database, settings: Settings, url: str, asked: Any) -> dict[str, Any]:
    """Fill, simulate, kill, re-decide, check."""
    migrate.upgrade(db)
    job = filled(db, Keyring.of(settings), asked.texts)
    print(f"{asked.texts:,} verdicts stored", flush=True)
    with db.begin() as connection:  # a job of a million, for the simulation: the first of its shards
        part = connection.scalar("select count(*) from shard_done where first_seq < %(n)s", {"n": SIMULATED})
    began = time.monotonic()
    simulated = simulate(db, read(policy("trial", 0.9)), Scope(1, job.id), at_most_shards=part)
    simulation_s = time.monotonic() - began
    first, _ = policies.add(db, 1, read(policy("first", 0.9)))
    second, _ = policies.add(db, 1, read(policy("second", 0.7)))
    policies.activate(db, first)
    poller = Poller(url, job)
    poller.start()
    whole_s, _ = redecide(settings, first.label)
    p99 = poller.p99()
    rng, kills = random.Random(2), 0
    for _ in range(asked.kills):
        _, was_killed = redecide(settings, second.label, kill_after_s=1.0 + rng.random() * whole_s / (asked.kills + 1))
        kills += was_killed
    last_s, _ = redecide(settings, second.label)
    poller.stopped.set()
    poller.join()
    with db.begin() as connection:
        connection.execute("set local statement_timeout = 0")
        rows = connection.execute(
            "select policy_id, sum(n)::int8 as texts, count(*) as rows from decision group by policy_id"
        ).fetchall()
    shards = (asked.texts - 1) // SHARD + 1
    assert {row.policy_id: (row.texts, row.rows) for row in rows} == dict.fromkeys((first.id, second.id), (asked.texts, shards))  # noqa: S101
    counted = views.get(db, job.public_id).actions or {}
    print(
        f"re-decided in {whole_s:.1f} s; after {kills} kills the rest in {last_s:.1f} s; polls p99 {p99} ms of {len(poller.ms):,}"
    )
    return {
        "texts": asked.texts, "seconds": round(whole_s, 1), "texts_per_s": round(asked.texts / whole_s), "kills": kills,
        "last_run_s": round(last_s, 1), "lost": 0, "double": 0, "poll_p99_ms": p99, "polls": len(poller.ms),
        "actions": dict(counted), "simulated": simulated.texts, "simulation_s": round(simulation_s, 2),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
