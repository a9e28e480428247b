#!/usr/bin/env python3
"""How long the console's pages of verdicts take over millions of rows, through a real API process, signed in.

    python -m benchmarks.console_verdicts [--postgres URL] [--rows 10000000] [--requests 200]

Fills a database of its own and drops it afterwards. Each kind of filter is asked for `--requests` times, on pages that follow one
another from the first. `ends`: requests until the whole had been looked at, where that was reached. The last line is one JSON.
"""

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlencode

import httpx2
import psycopg

from benchmarks.console_fill import NEEDLE, Filled, filled
from guardfleet.domain.scopes import ROLES
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys, migrate
from guardfleet.store.postgres.database import Database
from tests.services.databases import database_on, unique
from tests.services.fixtures import POSTGRES, SECRET_KEY
from tests.services.fleet import until

NEXT = re.compile(r'rel="next"[^>]* href="([^"]+)"')


def kinds(there: Filled) -> dict[str, dict[str, str]]:
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


def measured(visitor: httpx2.Client, asked: dict[str, str], requests: int) -> dict[str, Any]:
    """Ask for pages, each where the one before ended, and from the first again; return milliseconds."""
    first = "/console/verdicts?" + urlencode(asked)
    path, ms, at, ends = first, [], 0, None
    for _ in range(requests):
        began = time.perf_counter()
        page = visitor.get(path)
        ms.append(1000 * (time.perf_counter() - began))
        page.raise_for_status()
        found, at = NEXT.search(page.text), at + 1
        ends = ends if found or ends else at
        path, at = (found[1].replace("&amp;", "&"), at) if found else (first, 0)
    ms.sort()
    return {"p50_ms": round(ms[len(ms) // 2], 1), "p99_ms": round(ms[int(len(ms) * 0.99)], 1), "ends": ends}


@contextmanager
def api(settings: Settings) -> Iterator[str]:
    """Run a real API process; yield its URL."""
    command = [sys.executable, "-m", "guardfleet", "api"]
    process = subprocess.Popen(command, env=os.environ | settings.as_environment(), stdout=subprocess.DEVNULL)
    try:
        until(lambda: _listens(settings.api.port), what="the API")
        yield f"http://127.0.0.1:{settings.api.port}"
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", default=POSTGRES)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--requests", type=int, default=200)
    asked = parser.parse_args()
    name = unique()
    with psycopg.connect(asked.postgres, autocommit=True) as admin, tempfile.TemporaryDirectory() as folder:
        admin.execute(f"create database {name}")
        try:
            url, keyring = database_on(asked.postgres, name), Keyring(SECRET_KEY)
            settings = load_settings(
                database_url=url,
                broker_url="redis://127.0.0.1:6379/0",
                secret_key=SECRET_KEY,
                data_dir=folder,
                api_port=_free_port(),
            )
            with closing(Database(url)) as db:
                migrate.upgrade(db)
                there = filled(db, keyring, asked.rows)
                key = keys.create(db, keyring, name="viewer", scopes=ROLES["viewer"])
            print(
                json.dumps({"rows": there.rows, "load": os.getloadavg()[0], "kinds": walked(settings, key, there, asked.requests)})
            )
        finally:
            admin.execute(f"drop database if exists {name} with (force)")


def walked(settings: Settings, key: str, there: Filled, requests: int) -> dict[str, Any]:
    """Measure each kind of filter with a session of this key."""
    out = {}
    with api(settings) as url, httpx2.Client(base_url=url, timeout=60) as visitor:
        visitor.post("/console/sign-in", data={"key": key})
        for kind, filters in kinds(there).items():
            measured(visitor, filters, 5)
            out[kind] = measured(visitor, filters, requests)
            print(f"{kind:45} {out[kind]}", file=sys.stderr, flush=True)
    return out


if __name__ == "__main__":
    main()
