"""Measure how much longer `POST /v1/moderations` takes than the engine, one request after the other, alone or beside a bulk job.

    python benchmarks/api_latency.py --postgres URL --broker URL --engine instant --requests 300
    python benchmarks/api_latency.py --postgres URL --broker URL --engine model --bulk 20000 --requests 60

Prints one JSON; times in milliseconds. All texts differ, so that none is answered from the cache.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from guardfleet.cli.bench.pipeline import submit
from guardfleet.cli.bench.site import answers, asking, environment, free_port, start, until, write_texts
from guardfleet.domain.verdict import GUARD
from guardfleet.security.encryption import Keyring
from guardfleet.store import keys
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from worker.process.main import engine_of

WARM = 10
LOOK_S = 0.1


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--engine", choices=("instant", "model"), default="instant")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--bulk", type=int, default=0, help="texts of a job that runs meanwhile")
    asked = parser.parse_args()
    with environment(asked.postgres, asked.broker, engine=asked.engine, shard_texts=256) as settings:
        db, port = Database(settings.required("database_url")), free_port()
        served = settings.but(api_port=port)
        processes = [start(settings, "worker", "worker", says="worker_ready"), start(served, "api", "api")]
        processes.append(start(settings, "dispatcher", "dispatcher"))
        try:
            until(lambda: answers(port), 30, "the API")
            job = None
            if asked.bulk:
                source = settings.data_dir / "texts.jsonl"
                write_texts(source, asked.bulk)
                job, _ = submit(settings, db, source)
                while not views.get(db, job.public_id).done:
                    time.sleep(LOOK_S)
            key = keys.create(db, Keyring(settings.required("secret_key")), name="bench")
            found: dict[str, Any] = {"engine": asked.engine, "bulk": asked.bulk, "api": timed(asking_of(port, key), asked.requests)}
            if job is not None:
                found["bulk_still_runs"] = not views.get(db, job.public_id).state.is_final
        finally:
            for process in processes:
                process.stop()
            db.close()
        if asked.engine == "model" and not asked.bulk:
            engine = engine_of(settings)
            engine.start()
            found["engine_alone"] = timed(lambda text: engine.submit([text]).result(), asked.requests)
            engine.stop(timeout_s=10)
    print(json.dumps(found))
    return 0


def asking_of(port: int, key: str, detector: str = GUARD) -> Callable[[str], object]:
    """Return a client that asks for one verdict, or for what a detector says."""
    ask = asking(port, key)
    path, more = ("/v1/moderations", {}) if detector == GUARD else ("/v1/detect", {"detectors": [detector]})
    return lambda text: ask("POST", path, {"input": text, **more})


def timed(call: Callable[[str], object], n: int) -> dict[str, float]:
    """Return the milliseconds of `n` calls, without the first few."""
    found = []
    for i in range(n + WARM):
        started = time.perf_counter()
        call(f"a text number {i} that is short")
        found.append(1000 * (time.perf_counter() - started))
    found = sorted(found[WARM:])
    return {"p50": round(statistics.median(found), 1), "p99": round(found[int(0.99 * n)], 1), "max": round(found[-1], 1)}


if __name__ == "__main__":
    sys.exit(main())
