"""How fast the console's pages of jobs and verdicts are over millions of stored verdicts, with a real API process and a session.

    python -m benchmarks.console --postgres postgresql://postgres@127.0.0.1:5432/postgres --rows 10000000

Fills a database of its own, which takes minutes for 10 M rows and about 2 GB, and drops it. Each page is asked for `--requests`
times, verdicts by each kind of filter: the first page, then those after it until there is none, then from the first again. Prints
one JSON: milliseconds at the median and at the 99th percentile, and after how many pages a kind ends.
"""

import argparse
import json
import os
import pathlib
import re
import sys
import tempfile
import time
from contextlib import closing
from typing import Any
from urllib.parse import urlencode

import httpx2

from benchmarks.console_fill import NEEDLE, Filled, filled
from guardfleet.cli.bench.scratch import scratch_database
from guardfleet.cli.bench.site import answers, free_port, start, until
from guardfleet.domain.scopes import ROLES
from guardfleet.security.encryption import Keyring, new_secret_key
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys, migrate
from guardfleet.store.postgres.database import Database

NEXT = re.compile(r'rel="next"[^>]* href="([^"]+)"')
START_S = 600.0  # beside other work, starting can take minutes
FRAGMENT = {"hx-request": "true"}  # what htmx says when it renews a part of a page


def filters(there: Filled) -> dict[str, dict[str, str]]:
    """Return the filters that are measured: common ones, rare ones, and ones that match nothing."""
    return {
        "none": {},
        "severity": {"severity": "unsafe"},
        "severity, rare": {"severity": "unrated"},
        "category": {"category": "PII"},
        "category, nothing": {"category": "Jailbreak"},
        "action": {"action": "block"},
        "action, nothing": {"action": "flag"},
        "detector": {"finding": "finder:found"},
        "detector, nothing": {"finding": "finder:error"},
        "probability": {"of": "unsafe", "least": "0.99"},
        "error": {"error": "engine_failed"},
        "error, nothing": {"error": "too_long"},
        "job": {"job": there.great},
        "time": {"since": "2020-01-01T00:00", "until": "2100-01-01T00:00"},
        "time, nothing": {"since": "2100-01-01T00:00"},
        "row id, one of all": {"row": NEEDLE},
        "row id, nothing": {"row": "nothing"},
        "severity, category, probability and action": {"severity": "unsafe", "category": "PII", "least": "0.9", "action": "block"},
        "all that match nothing": {"severity": "safe", "least": "0.9", "row": "nothing", "error": "too_long"},
    }


def pages(there: Filled) -> dict[str, tuple[str, dict[str, str]]]:
    """Return the pages that are measured, by name: the address, and what is said beside it."""
    return {
        "jobs": ("/console/jobs", {}),
        "jobs, renewed": ("/console/jobs", FRAGMENT),
        "a great job": (f"/console/jobs/{there.great}", {}),
        "a great job, renewed": (f"/console/jobs/{there.great}", FRAGMENT),
        "a small job": (f"/console/jobs/{there.kept}", {}),
    } | {f"verdicts: {name}": (f"/console/verdicts?{urlencode(asked)}", {}) for name, asked in filters(there).items()}


def measured(visitor: httpx2.Client, first: str, headers: dict[str, str], requests: int) -> dict[str, Any]:
    """Ask for a page and those after it, each where the one before ended, and from the first again; return milliseconds."""
    path, ms, at, ends = first, [], 0, None
    for _ in range(requests):
        began = time.perf_counter()
        page = visitor.get(path, headers=headers)
        ms.append(1000 * (time.perf_counter() - began))
        page.raise_for_status()
        found, at = NEXT.search(page.text), at + 1
        ends = ends if found or ends else at
        path, at = (found[1].replace("&amp;", "&"), at) if found else (first, 0)
    ms.sort()
    return {"p50_ms": round(ms[len(ms) // 2], 1), "p99_ms": round(ms[int(len(ms) * 0.99)], 1), "ends": ends}


def walked(settings: Settings, key: str, there: Filled, requests: int, only: str) -> dict[str, Any]:
    """Measure each page whose name begins with `only`, with a session of this key."""
    out, port = {}, settings.api.port
    process = start(settings, "api", "api")
    try:
        until(lambda: answers(port), START_S, "the API")
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as visitor:
            visitor.post("/console/sign-in", data={"key": key})
            for name, asked in pages(there).items():
                if not name.startswith(only):
                    continue
                measured(visitor, *asked, 5)
                out[name] = measured(visitor, *asked, requests)
                print(f"{name:55} {out[name]}", file=sys.stderr, flush=True)
    finally:
        process.stop()
    return out


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", required=True, help="server on which a database may be created and dropped")
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--only", default="", help="pages whose names begin so, as `a great job`")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, scratch_database(asked.postgres) as (_, url):
        settings = load_settings(
            database_url=url, broker_url="redis://127.0.0.1:6379/0", secret_key=new_secret_key(), data_dir=pathlib.Path(folder),
            api_port=free_port(),
        )  # fmt: skip
        keyring = Keyring.of(settings)
        with closing(Database(url)) as db:
            migrate.upgrade(db)
            there = filled(db, keyring, asked.rows)
            key = keys.create(db, keyring, name="viewer", scopes=ROLES["viewer"])
        found = walked(settings, key, there, asked.requests, asked.only)
    print(json.dumps({"rows": there.rows, "load": os.getloadavg()[0], "pages": found}))


if __name__ == "__main__":
    main()
