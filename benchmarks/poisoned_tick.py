"""Measure what one tenant's poisoned rows cost others: nested metadata, and rows on which each step of a dispatcher's tick raises.

    python benchmarks/poisoned_tick.py --jobs 40

Runs the same jobs of another tenant twice, without the poison and beside it, in real processes on servers of their own. Prints one
JSON; exits with 1 if the dispatcher ended, a step did not raise, or the others took more than twice as long.
"""

import argparse
import json
import pathlib
import sys
import time
from collections import Counter
from contextlib import closing
from typing import Any

from guardfleet.security.encryption import Keyring
from guardfleet.store import keys, migrate
from guardfleet.store.postgres.database import Database
from tests.services.fleet import fleet, until
from tests.services.poison import UNITS, nested_blob, refuse
from tests.services.servers import own_servers
from tests.services.stored import new_job, scalar, submit

TEXTS, SHARD_TEXTS = 512, 128  # of each job of the others
DEPTHS = (range(960, 968), range(985, 986))  # of nine rows
OTHERS_LEFT = "select count(*) from job j join tenant t on t.id = j.tenant_id where t.name = 'others' and j.state <> 2"
NESTED_LEFT = "select count(*) from job where name = 'nested' and state <> 2"
NESTED_ROWS = "select count(*) from verdict v join job j on j.id = v.job_id where j.name = 'nested'"
NESTED_ERRORS = f"{NESTED_ROWS} and v.severity = 3"
MOST_TIMES = 2.0
PATIENCE_S = 120.0


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--broker", choices=("redis", "rabbitmq"), default="rabbitmq")
    asked = parser.parse_args()
    calm, beside = (one_run(asked, is_poisoned=is_poisoned) for is_poisoned in (False, True))
    times = round(beside["seconds"] / calm["seconds"], 2)
    quiet = sorted(UNITS.keys() - beside["raised"].keys())
    print(json.dumps({"jobs": asked.jobs, "texts": asked.jobs * TEXTS, "times": times, "calm": calm, "poisoned": beside}))
    return 0 if times <= MOST_TIMES and not beside["ended"] and not quiet else 1


def one_run(asked: argparse.Namespace, *, is_poisoned: bool) -> dict[str, Any]:
    """Run the others' jobs from their submit to their last verdict."""
    with own_servers(asked.broker, instant_ms_per_batch=50.0) as (settings, server, folder), closing(Database(server.url)) as db:
        migrate.upgrade(db)
        keyring = Keyring(settings.required("secret_key"))
        keys.create(db, keyring, name="others", tenant="others")
        tenant = int(scalar(db, "select id from tenant where name = 'others'"))
        if is_poisoned:
            poison(db, keyring)
        with fleet(settings, folder, ("dispatcher",), ("worker",)) as processes:
            dispatcher, worker = processes
            dispatcher.until_says("dispatcher_leading")
            worker.until_says("worker_ready")
            started = time.monotonic()
            for i in range(asked.jobs):
                submit(db, keyring, TEXTS, shard_texts=SHARD_TEXTS, new=new_job(name=f"job{i}", tenant_id=tenant))
            until(lambda: scalar(db, OTHERS_LEFT) == 0, timeout_s=PATIENCE_S, what="the others' verdicts")
            seconds = time.monotonic() - started
            until(lambda: scalar(db, NESTED_LEFT) == 0, timeout_s=PATIENCE_S, what="the end of the nested rows")
            steps = UNITS.keys() if is_poisoned else set()
            until(lambda: steps <= raised(dispatcher.log).keys(), timeout_s=PATIENCE_S, what="an exception in each step")
            return {
                "seconds": round(seconds, 2),
                "ended": [process.log.stem for process in processes if process.process.poll() is not None],
                "raised": dict(raised(dispatcher.log)),
                "nested_rows": scalar(db, NESTED_ROWS),
                "nested_rows_without_verdict": scalar(db, NESTED_ERRORS),
            }


def poison(db: Database, keyring: Keyring) -> None:
    """Create a job for each step, whose rows cannot be changed any more, and nine nested rows."""
    for prepare, table, _ in UNITS.values():
        job = submit(db, keyring, 8, shard_texts=4)
        prepare(db, job)
        refuse(db, table, job)
    for depths in DEPTHS:
        job = submit(db, keyring, len(depths), shard_texts=len(depths), new=new_job(name="nested"))
        nested_blob(db, keyring, job, depths)


def raised(log: pathlib.Path) -> Counter[str]:
    """Count how often each step raised, from the dispatcher's log."""
    out: Counter[str] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        if '"step_raised"' in line:
            out[json.loads(line)["step"]] += 1
    return out


if __name__ == "__main__":
    sys.exit(main())
