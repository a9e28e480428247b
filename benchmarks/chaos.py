#!/usr/bin/env python3
"""Put a fleet under load and break it repeatedly; the rows show whether anything was lost or done twice.

    python benchmarks/chaos.py --texts 200000 --kills 40 --broker rabbitmq

Runs twice, without faults and with them: three workers, two dispatchers, the API, a webhook sender, their own RabbitMQ or Redis,
and their own PostgreSQL, each behind a proxy. Submits are killed and repeated, readers page through the API all the time, a tenth
of the rows is hostile. Faults come in random order (`--seed`): SIGKILL, SIGTERM, SIGSTOP for longer than a lease, connections that
become half-open and are cut, brokers killed and restarted (some of them empty), PostgreSQL crashed and restarted, queues emptied.

Each fault waits for a moment at which verdicts are being written, and a fault of a worker until that worker holds a shard; texts
are fed until all faults have happened. A run fails, because it proved nothing, if a fault did not happen, or if most of the killed
workers held no shard; and also if a dispatcher, the API or the webhook sender ended by itself. The last line is one JSON.
"""

import argparse
import contextlib
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos_faults import Hit, Tormentor, faults_of, report, wanting
from benchmarks.chaos_site import Site, site_of
from benchmarks.chaos_texts import Source, submit, write
from benchmarks.chaos_witnesses import PATIENCE_S, STEP_S, Reader, Receiver, judge, said
from guardfleet.domain import ids
from guardfleet.errors import GuardfleetError
from guardfleet.security.encryption import Keyring
from guardfleet.security.signing import new_secret
from guardfleet.store import keys
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView

SECRET = new_secret()
SHARES = (0.9, 0.1)  # of the texts, in the initial jobs
KILL_SUBMIT_S = 1.2
RESERVE_S = 20.0  # of work in reserve while faults are still to come: a submit takes seconds
BATCH_ROWS = 512  # of the instant engine
STARTING_S = 4.0  # both runs begin with processes that are up
FAULTLESS = ("lost", "double", "wrong_verdicts", "wrong_refusals", "wrong_counters")


@dataclass
class Traffic:
    """Jobs on their way through the fleet, each submitted, read and awaited in a thread of its own."""

    site: Site
    callback: str
    key: str
    pool: ThreadPoolExecutor
    is_killed: bool  # whether each submit is killed once, halfway
    sources: list[Source] = field(default_factory=list)
    arriving: list[threading.Event] = field(default_factory=list)
    passages: "list[Future[tuple[JobView, Reader]]]" = field(default_factory=list)

    def add(self, n: int) -> None:
        """Add a job of `n` rows."""
        source = write(self.site.folder / f"job{len(self.sources)}.jsonl", n)
        arrived = threading.Event()
        self.sources.append(source)
        self.arriving.append(arrived)
        self.passages.append(self.pool.submit(self._carry, source, arrived))

    def feed(self, n: int, *, reserve: int, until_set: threading.Event) -> None:
        """Add jobs of `n` rows whenever fewer than `reserve` texts wait for their verdict."""
        while not until_set.wait(STEP_S):
            if all(arrived.is_set() for arrived in self.arriving) and _waiting(self.site) < reserve:
                self.add(n)

    def _carry(self, source: Source, arrived: threading.Event) -> tuple[JobView, Reader]:
        label = submit(self.site, source, self.callback, SECRET, kill_after_s=KILL_SUBMIT_S if self.is_killed else None)
        arrived.set()
        reader = Reader(self.site, self.key)
        reader.read(label)
        return _finished(self.site, label), reader


def one_run(args: argparse.Namespace, faults: list[str]) -> dict[str, Any]:
    """Run all jobs from the start to their last delivery."""
    rng, hits, ended = random.Random(args.seed + 1), list[Hit](), threading.Event()
    receiver = Receiver(random.Random(args.seed + 2))
    with site_of(args.broker, args.workers, args.ms_per_batch, args.shard_texts) as site, receiver as callback, tended(site):
        key = keys.create(site.db, Keyring(site.settings.required("secret_key")), name="chaos")
        time.sleep(STARTING_S)
        started = time.monotonic()
        with ThreadPoolExecutor(64) as pool:
            traffic = Traffic(site, callback, key, pool, is_killed=bool(faults))
            for share in SHARES:
                traffic.add(round(args.texts * share))
            if faults:
                torment = pool.submit(Tormentor(site, rng, hits, ended).give, faults, pause_s=args.pause_s)
                reserve = round(RESERVE_S * args.workers * BATCH_ROWS * 1000 / args.ms_per_batch)
                traffic.feed(reserve // 2, reserve=reserve, until_set=ended)
                torment.result()
            found, readers = zip(*[passage.result() for passage in traffic.passages], strict=True)
            seconds = time.monotonic() - started
        _until(lambda: _delivered(site) >= len(found), "every delivery")
        told = report(site, hits)
        return {
            "seconds": round(seconds, 1),
            "faults": told,
            "wanting": wanting(told, faults),
            **judge(site, traffic.sources, list(found), list(readers), receiver),
            **said(site),
        }


@contextlib.contextmanager
def tended(site: Site) -> Any:
    """Run the processes as an orchestrator does: what has ended is restarted."""
    done = threading.Event()

    def tend() -> None:
        while not done.wait(STEP_S):
            for process in site.processes:
                process.tend()

    for process in site.processes:
        process.start()
    tender = threading.Thread(target=tend, daemon=True)
    tender.start()
    try:
        yield
    finally:
        done.set()
        tender.join()
        for process in site.processes:
            process.stop()


def _finished(site: Site, label: str) -> JobView:
    """Return the job once it has ended."""
    view: JobView | None = None

    def look() -> bool:
        nonlocal view
        with contextlib.suppress(GuardfleetError):  # the database may be down at the moment
            view = views.get(site.db, ids.JOB.parse(label))
        return view is not None and view.state.is_final

    _until(look, f"the end of {label}")
    assert view is not None  # noqa: S101
    return view


def _delivered(site: Site) -> int:
    return _count(site, "select count(*) from delivery where state = 2", otherwise=-1)


def _waiting(site: Site) -> int:
    return _count(site, "select coalesce(sum(total - done), 0) from job where state in (0, 1)", otherwise=sys.maxsize)


def _count(site: Site, question: str, *, otherwise: int) -> int:
    with contextlib.suppress(GuardfleetError), site.db.begin() as connection:
        return int(connection.scalar(question))
    return otherwise


def _until(look: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not look():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not come in {PATIENCE_S:.0f} s.")
        time.sleep(STEP_S)


def pace(run: dict[str, Any]) -> float:
    """Return texts with a verdict per second."""
    return float(run["texts"] / run["seconds"])


def unforeseen(run: dict[str, Any]) -> list[str]:
    """Return who ended by itself and never may. A worker may: its watchdog ends it, and its supervisor restarts it."""
    return sorted(name for name in run["ended_by_itself"] if not name.startswith("worker"))


def main() -> int:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=200_000, help="initial rows; more follow until all faults have happened")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--broker-restarts", type=int, default=5)
    parser.add_argument("--postgres-restarts", type=int, default=3)
    parser.add_argument("--broker", choices=["rabbitmq", "redis"], default="rabbitmq")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--ms-per-batch", type=float, default=700.0, help="time per batch on the simulated GPU")
    parser.add_argument("--shard-texts", type=int, default=256)
    parser.add_argument("--pause-s", type=float, default=1.0, help="mean time before each fault")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    faults = faults_of(args.kills, args.broker_restarts, args.postgres_restarts, random.Random(args.seed))
    calm = one_run(args, [])
    print(json.dumps({"without_faults": calm}), flush=True)
    stormy = one_run(args, faults)
    counts = (stormy["jobs"], stormy["completion_events"], stormy["events_received"])
    is_whole = all(run[name] == 0 for run in (calm, stormy) for name in FAULTLESS) and counts == (stormy["submits"],) * 3
    gone = unforeseen(calm) + unforeseen(stormy)
    for name in gone:
        print(f"{name} ended by itself, which no fault explains.", file=sys.stderr)
    result = {"whole": is_whole and not stormy["wanting"] and not gone, "slowdown": round(pace(calm) / pace(stormy), 2), **stormy}
    print(json.dumps({"broker": args.broker, "seed": args.seed, **result}))
    return 0 if result["whole"] else 1


if __name__ == "__main__":
    sys.exit(main())
