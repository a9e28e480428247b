#!/usr/bin/env python3
"""Change the model of a fleet in the middle of a job, while somebody asks 20 times a second: what fails, and who waits how long.

    python -m benchmarks.hot_swap --postgres URL --broker URL                                 50,000 texts, the instant engine
    python -m benchmarks.hot_swap --postgres URL --broker URL --engine model --texts 3000     the demo model, and a copy of it
    python -m benchmarks.hot_swap --postgres URL --broker URL --detector finder      a detector's model; the job asks the guard too

Requests are sent at their time whether or not others were answered. After the change a corrupt model is deployed, which must be
refused. Prints one JSON, times in seconds; the exit status is 1 if a request failed or a verdict is missing.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.api_latency import asking_of
from guardfleet.cli.bench.pipeline import submit
from guardfleet.cli.bench.site import answers, environment, free_port, start, until, write_texts
from guardfleet.domain.states import DeploymentState
from guardfleet.domain.verdict import GUARD
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.settings.names import for_child
from guardfleet.store import keys
from guardfleet.store.deployments import deployments, seats
from guardfleet.store.deployments.row import Deployment
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database

DEMO = pathlib.Path(__file__).parents[1] / "models" / "demo"
THREADS = 100  # more than requests that can be open at once if the longest wait is 5 s
LIMIT_S = 150.0
LONG_WORDS = 400
VERDICTS = """select m.revision, count(*) as n, count(*) filter (where v.severity > 2 or v.severity < 0) as errors
              from verdict v join model m on m.id = v.model_id where v.job_id = %(job)s group by 1 order by 1"""
DETECTIONS = """select m.revision, count(*) as n, count(*) filter (where d.outcome > 2) as errors
                from detection d join model m on m.id = d.model_id where d.job_id = %(job)s group by 1 order by 1"""


class Callers:
    """Sends requests at a rate; `waits` has, by phase, the seconds from when each was due to its answer."""

    def __init__(self, port: int, key: str, per_s: float, detector: str) -> None:
        self._of, self._gap_s = (port, key, detector), 1 / per_s
        self.phase, self.waits, self.failed = "before", dict[str, list[float]](), list[str]()
        self._local, self._ended = threading.local(), threading.Event()
        self._pool = ThreadPoolExecutor(THREADS)
        self._thread = threading.Thread(target=self._send, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more, and wait for the answers."""
        self._ended.set()
        self._thread.join()
        self._pool.shutdown()

    def _send(self) -> None:
        began, n = time.perf_counter(), 0
        while not self._ended.is_set():
            n += 1
            due = began + n * self._gap_s
            self._ended.wait(max(0.0, due - time.perf_counter()))
            self._pool.submit(self._ask, n, due, self.phase)

    def _ask(self, n: int, due: float, phase: str) -> None:
        try:
            if not hasattr(self._local, "ask"):
                self._local.ask = asking_of(*self._of)
            self._local.ask(f"a request with the number {n}")
        except Exception as error:  # noqa: BLE001 - whatever it is, somebody got no verdict
            self.failed.append(f"{phase}: {error}")
            self.__dict__["_local"] = threading.local()
        self.waits.setdefault(phase, []).append(time.perf_counter() - due)

    def told(self) -> dict[str, Any]:
        """Return the figures of each phase."""
        return {
            phase: {
                "requests": len(waits), "p50_s": round(statistics.median(waits), 3),
                "p99_s": round(sorted(waits)[int(0.99 * len(waits))], 3), "longest_s": round(max(waits), 3),
            }
            for phase, waits in self.waits.items()
        }  # fmt: skip


def models_command(settings: Settings, *args: str) -> str:
    """Run `guardfleet models` as a user does; return what it printed."""
    command = [sys.executable, "-P", "-m", "guardfleet", "models", *args]
    environ = for_child(os.environ, settings.as_environment())
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout.strip()


def another_model(folder: pathlib.Path, engine: str, *, is_corrupt: bool) -> list[str]:
    """Return the arguments of a model that differs in its revision alone, or that cannot be opened."""
    if engine == "instant":
        return ["demo", "--revision", "broken" if is_corrupt else "2"]
    made = folder / ("corrupt" if is_corrupt else "other")
    shutil.copytree(DEMO, made)
    if is_corrupt:
        weights = made / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-5000])
    else:
        config = made / "config.json"
        config.write_text(config.read_text() + "\n")
    return [str(made)]


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--engine", choices=("instant", "model"), default="instant")
    parser.add_argument("--detector", default=GUARD, help="whose model; of the instant engine if it is not the guard")
    parser.add_argument("--texts", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--per-s", type=float, default=20.0)
    parser.add_argument("--ms-per-batch", type=float, default=60.0, help="of the instant engine")
    asked = parser.parse_args()
    slow = {"instant_ms_per_batch": asked.ms_per_batch} if asked.engine == "instant" else {}
    with environment(asked.postgres, asked.broker, engine=asked.engine, **slow) as settings:
        found = run(asked, settings)
    print(json.dumps(found))
    return 1 if found["failed"] or found["texts"]["without_verdict"] else 0


def run(asked: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Start a fleet, and change its model while it works."""
    db, port = Database(settings.required("database_url")), free_port()
    served = settings.but(api_port=port)
    guards = asked.workers if asked.detector == GUARD else 1
    processes = [start(settings, f"worker{i}", "worker", says="worker_ready") for i in range(guards)]
    if asked.detector != GUARD:
        named = ("worker", "--detector", asked.detector)
        processes += [start(settings, f"{asked.detector}{i}", *named, says="worker_ready") for i in range(asked.workers)]
    processes += [start(served, "api", "api"), start(settings, "dispatcher", "dispatcher")]
    callers = Callers(port, keys.create(db, Keyring(settings.required("secret_key")), name="bench"), asked.per_s, asked.detector)
    try:
        until(lambda: answers(port), 30, "the API")
        long = settings.data_dir / "long.jsonl"  # so that few fit in a batch, and the job lasts
        long.write_text(json.dumps({"text": "word " * LONG_WORDS}))
        write_texts(
            source := settings.data_dir / "texts.jsonl", asked.texts, source=str(long) if asked.engine == "instant" else None
        )
        callers.start()
        job, _ = submit(settings, db, source, *(() if asked.detector == GUARD else ("--detector", f"guard,{asked.detector}")))
        until(lambda: views.get(db, job.public_id).done > asked.texts / 10, LIMIT_S, "the job")
        callers.phase, began = "during", time.monotonic()
        taken = deployed(settings, db, asked.detector, *another_model(settings.data_dir, asked.engine, is_corrupt=False))
        swap_s, done_at_swap = time.monotonic() - began, views.get(db, job.public_id).done
        callers.phase = "after"
        refused = deployed(settings, db, asked.detector, *another_model(settings.data_dir, asked.engine, is_corrupt=True))
        until(lambda: views.get(db, job.public_id).state.is_final, LIMIT_S, "the job")
        callers.stop()
        found = {
            "detector": asked.detector, "engine": asked.engine, "workers": asked.workers, "failed": len(callers.failed),
            "why": callers.failed[:3],
            "requests": callers.told(), "swap_s": round(swap_s, 1), "swap": taken.told.label, "job_done_at_swap": done_at_swap,
            "texts": verdicts_of(db, job.id, asked.detector) | {"models": views.get(db, job.public_id).models},
            "corrupt": {"state": refused.told.label, "reason": refused.reason},
            "serves_now": sorted({str(seat.deployment_id) for seat in seats.there(db, asked.detector)}), "taken": taken.id,
        }  # fmt: skip
    finally:
        for process in processes:
            process.stop()
        db.close()
    return found


def deployed(settings: Settings, db: Database, detector: str, *model: str) -> Deployment:
    """Deploy a model, and return the deployment once it has been taken or refused."""
    label = models_command(settings, "deploy", *model, "--detector", detector)

    def look() -> Deployment:
        return deployments.get(db, label, detector=detector)

    until(lambda: look().told is not DeploymentState.ROLLING, LIMIT_S, label)
    return look()


def verdicts_of(db: Database, job_id: int, detector: str) -> dict[str, Any]:
    """Return how many verdicts or detections each revision gave, and how many texts have none."""
    with db.session() as connection:
        rows = connection.execute(VERDICTS if detector == GUARD else DETECTIONS, {"job": job_id}).fetchall()
        total = connection.scalar("select total from job where id = %(job)s", {"job": job_id})
    judged = sum(row.n - row.errors for row in rows)
    return {"by_revision": {row.revision[:12]: row.n for row in rows}, "without_verdict": total - judged}


if __name__ == "__main__":
    sys.exit(main())
