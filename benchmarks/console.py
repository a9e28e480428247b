#!/usr/bin/env python3
"""Measure the console's pages over millions of verdicts: p50 and p99 of 200 requests each, by somebody who is signed in.

    python -m benchmarks.console [--postgres URL] [--rows 10000000] [--requests 200]

Fills a database of its own, dropped afterwards (about 200 bytes a row), by a statement for each 250,000: ten jobs, the first of
which has half of all verdicts, all decided of by one policy. The API runs in a process of its own. The last line is one JSON.
"""

import argparse
import json
import multiprocessing
import re
import socket
import sys
import tempfile
import time
from contextlib import closing
from typing import Any

import httpx2
import psycopg

from api.server import serve
from guardfleet.domain.scopes import ROLES
from guardfleet.domain.verdict import Model
from guardfleet.policy.reading import read
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys, migrate, models
from guardfleet.store.partitions import ensure_day
from guardfleet.store.policy import policies
from guardfleet.store.postgres.database import Database
from tests.services.databases import database_on, unique
from tests.services.fixtures import POSTGRES, SECRET_KEY
from tests.services.stored import submit

# Pages to measure, by name: `{job}` is the job with half of all verdicts, `{small}` one of the others.
PAGES = {
    "jobs": "/console/jobs",
    "jobs_refresh": "/console/jobs",
    "job_large": "/console/jobs/{job}",
    "job_small": "/console/jobs/{small}",
    "job_refresh": "/console/jobs/{job}",
}
FRAGMENTS = ("jobs_refresh", "job_refresh")  # asked for by htmx
JOBS, SHARD, STEP = 10, 1024, 250_000
POLICY = "name: trial\ndefault: allow\nrules:\n- {id: r1, action: review, when: {severity: [unsafe]}}"
FILL = """insert into verdict (job_id, seq, day, severity, categories, served_by, model_id, probabilities, input_tokens,
                               output_tokens, id, error, metadata)
          select %(job)s, i, %(day)s, s.severity, case when s.severity in (1, 2) then 1 << (i %% 9) else 0 end, 0, 1,
                 case when s.severity < 3 then set_byte(set_byte('\\x000000', 0, 255 - s.p), 2, s.p) end, 20 + i %% 60, 10,
                 'id' || i, case when s.severity = 3 then 'unreadable' end,
                 jsonb_build_object('lang', (array['en', 'zh', 'de', 'fr'])[1 + i %% 4], 'source', 'forum' || i %% 30, 'k', i %% 7)
          from generate_series(%(start)s, %(end)s - 1) i
          cross join lateral (select hashint4(i) & 255 as p,
            case when i %% 1000 = 0 then 3 when i %% 10 < 8 then 0 else i %% 10 - 7 end as severity) s"""
DONE = """with s as (insert into shard_done (job_id, ord, shard_no, first_seq, n)
            select %(job)s, k + 1, k, k * %(shard)s, least(%(shard)s, %(n)s - k * %(shard)s)
            from generate_series(0, (%(n)s - 1) / %(shard)s) k returning *)
          insert into decision (job_id, first_seq, policy_id, n, outcomes, allowed, flagged, reviewed, blocked, shadow)
          select job_id, first_seq, %(policy)s, n, decode(repeat('00', n), 'hex'), n, 0, 0, 0, false from s"""
ENDED = """update job set state = 2, total = %(n)s, done = %(n)s, safe = %(n)s * 8 / 10 - %(n)s / 1000, controversial = %(n)s / 10,
           unsafe = %(n)s / 10, error = %(n)s / 1000, next_ord = (%(n)s - 1) / %(shard)s + 1, started_at = now(),
           finished_at = now(), model_id = 1, models = '{1}' where id = %(job)s"""


def filled(db: Database, keyring: Keyring, rows: int) -> tuple[str, str]:
    """Return the labels of the large job and of a small one, with so many verdicts in all."""
    models.register(db, Model("m", "r", "p"))
    policy, _ = policies.add(db, 1, read(POLICY))
    policies.activate(db, policy)
    labels = []
    for at in range(JOBS):
        job, n = submit(db, keyring, 1), rows // 2 if at == 0 else rows // 2 // (JOBS - 1)
        labels.append(job.label)
        with db.begin() as connection:
            ensure_day(connection, job.day)
        for start in range(0, n, STEP):
            with db.begin() as connection:
                connection.execute("set local statement_timeout = 0")
                connection.execute(FILL, {"job": job.id, "day": job.day, "start": start, "end": min(n, start + STEP)})
        with db.begin() as connection:
            connection.execute("set local statement_timeout = 0")
            connection.execute(DONE, {"job": job.id, "shard": SHARD, "n": n, "policy": policy.id})
            connection.execute(ENDED, {"job": job.id, "shard": SHARD, "n": n})
        print(f"{job.label}: {n:,} verdicts", flush=True)
    with db.session() as connection:
        connection.execute("set statement_timeout = 0")
        connection.execute("vacuum analyze verdict, shard_done, decision, job")
        connection.execute("checkpoint")  # what is measured was written long ago
        connection.execute("reset statement_timeout")
    return labels[0], labels[1]


def measured(url: str, key: str, labels: tuple[str, str], n: int) -> dict[str, Any]:
    """Return the times of each page, in milliseconds."""
    found = {}
    with httpx2.Client(base_url=url, timeout=60) as person:
        assert person.post("/console/sign-in", data={"key": key}).status_code == 303  # noqa: S101, PLR2004
        for name, address in PAGES.items():
            at = address.format(job=labels[0], small=labels[1])
            headers = {"hx-request": "true"} if name in FRAGMENTS else {}
            taken = []
            for _ in range(n):
                began = time.perf_counter()
                answer = person.get(at, headers=headers)
                taken.append(1000 * (time.perf_counter() - began))
                assert answer.status_code == 200, answer.text  # noqa: S101, PLR2004
            taken.sort()
            said = re.search(r"An estimate: ([\d,]+) texts", answer.text)
            found[name] = {
                "p50_ms": round(taken[n // 2], 1),
                "p99_ms": round(taken[int(n * 0.99)], 1),
                "bytes": len(answer.content),
                "looked_at": said.group(1) if said else None,
            }
            print(name, found[name], flush=True)
    return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--postgres", default=POSTGRES)
    asked = parser.parse_args()
    name = unique()
    with psycopg.connect(asked.postgres, autocommit=True) as admin, tempfile.TemporaryDirectory() as folder:
        admin.execute(f"create database {name}")
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            settings = load_settings(
                database_url=database_on(asked.postgres, name), broker_url="redis://127.0.0.1:1/0", secret_key=SECRET_KEY,
                data_dir=folder, api_host="127.0.0.1", api_port=port,
            )  # fmt: skip
            print(json.dumps(run(settings, port, asked)))
        finally:
            admin.execute(f"drop database if exists {name} with (force)")


def run(settings: Settings, port: int, asked: Any) -> dict[str, Any]:
    """Fill, serve, measure."""
    with closing(Database(settings.required("database_url"))) as db:
        migrate.upgrade(db)
        began = time.monotonic()
        labels = filled(db, Keyring.of(settings), asked.rows)
        filled_s = time.monotonic() - began
        key = keys.create(db, Keyring.of(settings), name="operator", scopes=ROLES["operator"])
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(settings,))
    server.start()
    try:
        _wait(port)
        return {"rows": asked.rows, "filled_s": round(filled_s, 1)} | measured(
            f"http://127.0.0.1:{port}", key, labels, asked.requests
        )
    finally:
        server.terminate()
        server.join()


def _wait(port: int) -> None:
    ends = time.monotonic() + 600  # beside other work, starting can take minutes
    while time.monotonic() < ends:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("the API does not listen")


if __name__ == "__main__":
    sys.exit(main())
