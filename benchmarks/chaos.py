#!/usr/bin/env python3
"""Put a fleet under load and break it, over and over; the rows say whether anything was lost or done twice.

    python benchmarks/chaos.py --texts 200000 --kills 40 --broker rabbitmq

Runs the same jobs twice, without faults and with: three workers, two dispatchers, the API, a sender of webhooks, their own RabbitMQ
or Redis, and their own PostgreSQL, each behind a proxy. A submit is killed and given again, a reader pages through the API all the
while. Faults come in a random order (`--seed`): SIGKILL, SIGTERM, SIGSTOP for longer than a lease, connections that go half-open
and are cut, brokers killed and started (some of them empty), PostgreSQL crashed and started, queues emptied. The last line is one
JSON.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.chaos_site import LEASE_S, Site, empty, site_of
from benchmarks.chaos_witnesses import FLAGGED_EVERY, PATIENCE_S, STEP_S, Reader, Receiver, judge, said
from guardfleet.errors import GuardfleetError
from guardfleet.sealing import Keyring
from guardfleet.signing import new_secret
from guardfleet.store import jobs, keys
from guardfleet.store.jobs import JobView, parse_label

SECRET = new_secret()
SIZES = {"big": 0.9, "small": 0.1}  # the jobs, by their share of the texts


def submit(site: Site, source: pathlib.Path, callback: str, *, kill_after_s: float | None) -> str:
    """Submit through a process that is killed once, and give it again until it has gone through; the job's label."""
    command = [
        sys.executable,
        "-m",
        "guardfleet",
        "submit",
        str(source),
        "--once",
        "--callback-url",
        callback,
        "--callback-secret",
        SECRET,
    ]
    environment = os.environ | site.settings.as_environment()
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        if kill_after_s is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(kill_after_s)
            process.kill()
            kill_after_s = None
        out, _ = process.communicate(timeout=120)
        if process.returncode == 0:
            return out.strip()
        time.sleep(STEP_S)
    raise SystemExit("a submit did not go through.")


def faults_of(kills: int, broker_restarts: int, postgres_restarts: int, rng: random.Random) -> list[str]:
    """Which faults, in which order."""
    faults = ["kill"] * kills + ["restart_broker"] * broker_restarts + ["restart_postgres"] * postgres_restarts
    faults += ["stop"] * 4 + ["term"] * 4 + ["half_open_broker"] * 2 + ["half_open_postgres"] * 2 + ["empty_broker"] * 2
    rng.shuffle(faults)
    return faults


def commit(fault: str, site: Site, rng: random.Random) -> None:
    """Break one thing."""
    match fault:
        case "kill":
            site.one(rng.choice(["worker", "worker", "worker", "dispatcher", "api", "webhooks"]), rng).send(signal.SIGKILL)
        case "term":
            site.one("worker", rng).send(signal.SIGTERM)
        case "stop":
            victim = site.one(rng.choice(["worker", "dispatcher"]), rng)
            victim.send(signal.SIGSTOP)
            time.sleep(LEASE_S + 1)
            victim.send(signal.SIGCONT)
        case "half_open_broker" | "half_open_postgres":
            proxy = site.broker_proxy if fault == "half_open_broker" else site.postgres_proxy
            proxy.freeze()
            time.sleep(LEASE_S / 2)
            proxy.cut()
        case "restart_broker":
            site.broker.kill(empty=rng.random() < 0.5)  # noqa: PLR2004
            site.broker.start()
        case "restart_postgres":
            site.postgres.crash()
            site.postgres.start()
        case "empty_broker":
            empty(site)


def one_run(args: argparse.Namespace, *, with_faults: bool) -> dict[str, Any]:
    """Both jobs from nothing to their last delivery."""
    rng = random.Random(args.seed)
    receiver = Receiver(random.Random(args.seed + 1))
    with site_of(args.broker, args.workers, args.ms_per_batch, args.shard_texts) as site, receiver as callback:
        sources = [write(site.folder / f"{name}.jsonl", round(args.texts * share)) for name, share in SIZES.items()]
        key = keys.create(site.db, Keyring(site.settings.required("secret_key")), name="chaos")
        for process in site.processes:
            process.start()
        tending = threading.Event()
        tender = threading.Thread(target=tend, args=(site, tending), daemon=True)
        tender.start()
        time.sleep(4)  # both runs start with processes that are up
        started = time.monotonic()
        readers = [Reader(site, key) for _ in sources]
        with ThreadPoolExecutor(5) as pool:
            labels = pool.map(lambda source: submit(site, source, callback, kill_after_s=1.2 if with_faults else None), sources)
            committed: Counter[str] = Counter()
            trouble = pool.submit(break_things, args, site, rng, committed) if with_faults else None
            named = list(labels)
            readings = [pool.submit(reader.read, label) for reader, label in zip(readers, named, strict=True)]
            found = [finished(site, label) for label in named]
            seconds, during = time.monotonic() - started, dict(committed)
            if trouble:
                trouble.result()
            until(lambda: delivered(site) >= len(named), "every delivery")
            for reading in readings:
                reading.result()
        tending.set()
        tender.join()
        for process in site.processes:
            process.stop()
        return {
            "seconds": round(seconds, 1),
            "faults": during,  # those that came before the last verdict
            "starts": sum(process.starts for process in site.processes),
            **judge(site, found, readers, receiver),
            **said(site),
        }


def break_things(args: argparse.Namespace, site: Site, rng: random.Random, committed: Counter[str]) -> None:
    """One fault after the other, evenly over the time that the work is expected to take."""
    faults = faults_of(args.kills, args.broker_restarts, args.postgres_restarts, rng)
    for fault in faults:
        time.sleep(rng.uniform(0.5, 1.5) * args.pause_s)
        commit(fault, site, rng)
        committed[fault] += 1


def tend(site: Site, done: threading.Event) -> None:
    """What an orchestrator does: start again what has ended."""
    while not done.wait(STEP_S):
        for process in site.processes:
            process.tend()


def finished(site: Site, label: str) -> JobView:
    """The job, once it has ended."""
    view: JobView | None = None

    def look() -> bool:
        nonlocal view
        with contextlib.suppress(GuardfleetError):  # the database may be away just now
            view = jobs.get(site.db, parse_label(label))
        return view is not None and view.state.is_final

    until(look, f"the end of {label}")
    assert view is not None  # noqa: S101
    return view


def delivered(site: Site) -> int:
    """Webhooks that were taken."""
    with contextlib.suppress(GuardfleetError), site.db.begin() as connection:
        return int(connection.exec_driver_sql("select count(*) from delivery where state = 2").scalar_one())
    return -1


def until(look: Callable[[], bool], what: str) -> None:
    """Wait."""
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not come in {PATIENCE_S:.0f} s.")
        time.sleep(STEP_S)


def write(path: pathlib.Path, n: int) -> pathlib.Path:
    """Texts that differ, some of them marked."""
    with path.open("w") as file:
        for i in range(n):
            mark = " [[unsafe]]" if i % FLAGGED_EVERY == 0 else ""
            file.write(json.dumps({"id": f"{i}", "text": f"text {i} of {path.stem}{mark}"}) + "\n")
    return path


def main() -> int:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--broker-restarts", type=int, default=5)
    parser.add_argument("--postgres-restarts", type=int, default=3)
    parser.add_argument("--broker", choices=["rabbitmq", "redis"], default="rabbitmq")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--ms-per-batch", type=float, default=700.0, help="what a batch takes on the pretended GPU")
    parser.add_argument("--shard-texts", type=int, default=256)
    parser.add_argument("--pause-s", type=float, default=1.0, help="mean time between faults")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    calm = one_run(args, with_faults=False)
    print(json.dumps({"without_faults": calm}), flush=True)
    stormy = one_run(args, with_faults=True)
    good = ("lost", "double", "wrong_verdicts", "wrong_counters")
    told = (stormy["jobs"], stormy["completion_events"], stormy["events_received"])
    whole = all(stormy[name] == 0 for name in good) and told == (len(SIZES),) * 3
    slowdown = round(stormy["seconds"] / calm["seconds"], 2)
    print(json.dumps({"broker": args.broker, "seed": args.seed, "whole": whole, "slowdown": slowdown, **stormy}))
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
