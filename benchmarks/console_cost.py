"""Measure what the console costs those who do not look at it: the API with and without it, in turns.

    python benchmarks/console_cost.py --postgres URL --broker URL --turns 3

Each turn starts an API with the console and one without, beside the same worker and dispatcher, and measures the start, the memory,
a job's status, a page of 1,000 results, and `POST /v1/moderations` with the instant engine. Prints one JSON: medians of the turns'
medians, times in milliseconds, and the ratio of with to without; a ratio within the turns' own spread is none.
"""

import argparse
import json
import pathlib
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from guardfleet.cli.bench.pipeline import submit
from guardfleet.cli.bench.site import answers, asking, environment, free_port, start, until, write_texts
from guardfleet.domain import ids
from guardfleet.process.supervisor import Child
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import keys
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database

TEXTS = 2_000
PAGE = 1_000
WARM = 10
START_S = 120
Found = dict[str, float]


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--requests", type=int, default=200, help="of each kind and turn")
    asked = parser.parse_args()
    with environment(asked.postgres, asked.broker, engine="instant", shard_texts=256) as settings:
        db = Database(settings.required("database_url"))
        processes = [start(settings, "worker", "worker", says="worker_ready"), start(settings, "dispatcher", "dispatcher")]
        try:
            job, key = finished_job(settings, db), keys.create(db, Keyring(settings.required("secret_key")), name="bench")
            turns: dict[bool, list[Found]] = defaultdict(list)
            for turn in range(asked.turns):
                for enabled in (False, True) if turn % 2 else (True, False):  # neither is always first
                    turns[enabled].append(one_turn(settings, enabled, job, key, asked.requests, turn))
        finally:
            for process in processes:
                process.stop()
            db.close()
    print(json.dumps(compared(turns)))
    return 0


def finished_job(settings: Settings, db: Database) -> str:
    """Return a job whose results can be read."""
    source = settings.data_dir / "texts.jsonl"
    write_texts(source, TEXTS)
    job, _ = submit(settings, db, source)
    until(lambda: views.get(db, job.public_id).state.is_final, START_S, "the job")
    return ids.BATCH.of(job.public_id)


def one_turn(settings: Settings, enabled: bool, job: str, key: str, n: int, turn: int) -> Found:
    """Start an API, measure it, stop it."""
    port = free_port()
    served = settings.but(api_port=port, console={"enabled": enabled})
    began = time.perf_counter()
    api = start(served, f"api-{turn}-{enabled}", "api")
    try:
        until(lambda: answers(port), START_S, "the API")
        found = {"start_s": time.perf_counter() - began, "memory_mib": resident_mib(api)}
        ask = asking(port, key)
        found["status_ms"] = timed(lambda _: ask("GET", f"/v1/batches/{job}"), n)
        found["page_ms"] = timed(lambda _: ask("GET", f"/v1/batches/{job}/results?limit={PAGE}"), max(10, n // 5))
        found["moderation_ms"] = timed(lambda i: ask("POST", "/v1/moderations", {"input": f"a text {turn} {enabled} {i}"}), n)
        found["memory_after_mib"] = resident_mib(api)
    finally:
        api.stop()
    return found


def compared(turns: dict[bool, list[Found]]) -> dict[str, Any]:
    """Return medians, spreads and ratios."""
    out: dict[str, Any] = {}
    for name in turns[True][0]:
        values = {enabled: [found[name] for found in turns[enabled]] for enabled in (False, True)}
        without, with_console = (statistics.median(values[enabled]) for enabled in (False, True))
        out[name] = {
            "without": round(without, 2),
            "with": round(with_console, 2),
            "ratio": round(with_console / without, 3),
            "spread_without": [round(min(values[False]), 2), round(max(values[False]), 2)],
            "spread_with": [round(min(values[True]), 2), round(max(values[True]), 2)],
        }
    return out


def timed(call: Callable[[int], object], n: int) -> float:
    """Return the median of `n` calls in milliseconds, without the first few."""
    found = []
    for i in range(n + WARM):
        began = time.perf_counter()
        call(i)
        found.append(1000 * (time.perf_counter() - began))
    return statistics.median(found[WARM:])


def resident_mib(child: Child) -> float:
    """Return the resident memory of a process in MiB."""
    found = re.search(r"VmRSS:\s+(\d+) kB", pathlib.Path(f"/proc/{child.pid}/status").read_text())
    if found is None:
        raise RuntimeError("the system does not say how much memory the API has")
    return int(found[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
