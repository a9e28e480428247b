"""`guardfleet bench pipeline`: measure how fast a job passes through the whole pipeline, and what it costs.

Each run has three parts on the same rows: the submits (with nothing else running), the work (one dispatcher, N workers, an API
that is polled meanwhile), and a short job of one text per shard, which shows a shard's fixed cost. A job of ten shards ends before
its rate can be measured: many of that size, one after the other, show what a text of such a job costs.
"""

import json
import multiprocessing
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from guardfleet.cli import DONE, terminal
from guardfleet.cli.bench import scratch, yardstick
from guardfleet.cli.bench.polling import Poller
from guardfleet.cli.bench.site import answers, environment, free_port, peak_mib, start, until, write_texts
from guardfleet.cli.commands.policy import load as load_policy
from guardfleet.domain import ids
from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.domain.states import JobState
from guardfleet.errors import FatalError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.settings.names import for_child
from guardfleet.store import keys
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.policy import policies
from guardfleet.store.postgres.database import Database

SINGLE_SHARDS = 300
LOOK_S = 0.25  # between polls for the job's end; its times are read from its row
ROUND_FROM = 100  # from here on figures are shown without decimals


@dataclass(frozen=True)
class Load:
    """What one run puts through the pipeline."""

    texts: int
    jobs: int = 1  # each with `texts` texts
    workers: int = 1
    engine: str = "instant"
    ms_per_batch: float = 0.0
    shard_texts: int = 1024
    duplicates: float = 0.0
    source: str | None = None
    beside_engine: bool = False
    polls: bool = True
    policy: str | None = None  # a file

    @property
    def size(self) -> str:
        """The size as the table and `--texts` show it."""
        return f"{self.jobs}x{self.texts:,}" if self.jobs > 1 else f"{self.texts:,}"


def bench(loads: list[Load], *, postgres: str | None, broker: str | None, turns: int, as_json: bool) -> int:
    """Run each load `turns` times, in turn; print medians in the table, and every run in the JSON of the last line."""
    signal.signal(signal.SIGTERM, _interrupt)
    runs: list[dict[str, Any]] = []
    for turn in range(turns):
        for load in loads:
            terminal.say(f"turn {turn + 1}: {load.size} texts, {load.workers} workers, engine {load.engine}")
            runs.append(run(load, postgres=postgres, broker=broker) | {"turn": turn})
    _table(loads, runs)
    if as_json:
        print(json.dumps({"broker": (broker or "embedded").split(":")[0], "cpus": os.cpu_count(), "runs": runs}))
    return DONE


def run(load: Load, *, postgres: str | None, broker: str | None) -> dict[str, Any]:
    """Run one load on servers of its own."""
    values = {"engine": load.engine, "instant_ms_per_batch": load.ms_per_batch, "shard_texts": load.shard_texts}
    with environment(postgres, broker, **values) as settings:
        sources = [settings.data_dir / f"texts{i}.jsonl" for i in range(load.jobs)]
        for i, source in enumerate(sources):
            write_texts(source, load.texts, first=i * load.texts, duplicates=load.duplicates, source=load.source)
        db = Database(settings.required("database_url"), pool_size=2)
        try:
            if load.policy is not None:
                policies.activate(db, policies.add(db, DEFAULT_TENANT, load_policy(load.policy))[0])
            alone = [_engine_alone_apart(settings, sources[0])] if load.beside_engine else []
            found = _measure(settings, db, sources, load)
            if load.beside_engine:  # before and after: the machine's speed may have changed meanwhile
                alone.append(_engine_alone_apart(settings, sources[0]))
            mean = round(statistics.mean(alone), 1) if alone else None
            return {**vars(load), "engine_alone_texts_per_s": mean, "engine_alone_each": alone, **found}
        finally:
            db.close()


def _measure(settings: Settings, db: Database, sources: list[pathlib.Path], load: Load) -> dict[str, Any]:
    before = scratch.footprint(db)
    submits = [submit(settings, db, source) for source in sources]
    taken_in = scratch.footprint(db)
    port = free_port()
    served = settings.but(api_port=port)
    processes = [start(settings, f"worker{i}", "worker", says="worker_ready") for i in range(load.workers)]
    processes.append(start(served, "api", "api"))
    poller = Poller(port, keys.create(db, Keyring.of(settings), name="bench"))
    try:
        until(lambda: answers(port), 30, "the API")
        if load.polls:
            poller.start(ids.BATCH.of(submits[-1][0].public_id))
        started = time.perf_counter()
        processes.append(start(settings, "dispatcher", "dispatcher"))
        done = [_finished(db, job, processes) for job, _ in submits]
        seconds = time.perf_counter() - started
        latencies = poller.stop()
        after = scratch.footprint(db)
        overhead = _of_single_shards(settings, db, sources[0], processes)
        memory = {process.name: peak_mib(process.pid) for process in processes}
    finally:
        for process in processes:
            process.ask_to_stop()
        for process in processes:
            process.stop()
    pace = scratch.pace(db, done)
    total = sum(job.total for job in done)
    ingest_s = sum((job.sealed_at - job.created_at).total_seconds() for job in done if job.sealed_at)
    ingest_per_s = total / ingest_s if ingest_s else None
    machine = yardstick.measure(settings.required("database_url"), done, sources[0])
    return {
        "completed": all(job.state is JobState.COMPLETED for job in done),
        "lost": total - pace.verdicts,
        "model_runs": sum(job.done - job.saved for job in done),
        "ingest_texts_per_s": round(ingest_per_s) if ingest_per_s else None,
        "texts_per_s": round(pace.texts_per_s) if pace.texts_per_s else None,
        "yardstick": asdict(machine) | machine.shares(texts_per_s=pace.texts_per_s, ingest_per_s=ingest_per_s),
        "seconds": round(seconds, 2),
        "poll_ms": latencies,
        "shard_of_one_ms": overhead,
        "bytes_per_text": {
            "texts": round((taken_in.size - before.size) / total),
            "verdicts": round((after.size - taken_in.size) / total),
            "wal_texts": round((taken_in.wal - before.wal) / total),
            "wal_verdicts": round((after.wal - taken_in.wal) / total),
        },
        "peak_mib": {"submit": max(mib for _, mib in submits), **memory},
    }


def submit(settings: Settings, db: Database, source: pathlib.Path, *options: str) -> tuple[JobView, float]:
    """Submit in a process of its own; return the job and the process's peak memory in MiB."""
    command = [sys.executable, "-P", "-m", "guardfleet", "submit", str(source), *options]
    environ = for_child(os.environ, settings.as_environment())
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        label = process.stdout.readline().strip() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise FatalError("the submit failed.")
    return views.get(db, ids.JOB.parse(label)), round(usage.ru_maxrss / 1024, 1)


def _of_single_shards(settings: Settings, db: Database, source: pathlib.Path, processes: list[Any]) -> float:
    """Return the milliseconds that a shard of one text takes, if there are many."""
    few = source.with_name("few.jsonl")
    with source.open() as lines, few.open("w") as out:
        for _, line in zip(range(SINGLE_SHARDS), lines, strict=False):
            out.write(line)
    job = _finished(db, submit(settings.but(shard_texts=1, cache_hours=0.0), db, few)[0], processes)
    pace = scratch.pace(db, [job])
    return round(1000 * pace.seconds / max(1, pace.texts), 2)


def _engine_alone_apart(settings: Settings, source: pathlib.Path) -> float:
    """Measure the engine in a process of its own, which releases all its memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_engine_alone, settings, source).result()


def _engine_alone(settings: Settings, source: pathlib.Path) -> float:
    """Return texts per second of the bare engine: the same rows in requests of a shard's size, as many at once as in a worker."""
    from producer.readers import read
    from worker.process.main import engine_of

    contents = [row.content for _, row in read(str(source), max_text_bytes=1 << 20) if not isinstance(row, Exception)]
    requests = [contents[at : at + settings.intake.shard_texts] for at in range(0, len(contents), settings.intake.shard_texts)]
    engine = engine_of(settings)
    engine.start()
    try:
        with ThreadPoolExecutor(settings.worker.concurrency) as pool:
            ends = list(pool.map(lambda request: (engine.submit(request).result(), time.perf_counter())[1], requests))
    finally:
        engine.stop(timeout_s=30)
    first = min(range(len(ends)), key=ends.__getitem__)
    return round((len(contents) - len(requests[first])) / (max(ends) - min(ends)), 1) if len(ends) > 1 else 0.0


def _finished(db: Database, job: JobView, processes: list[Any]) -> JobView:
    while not (job := views.get(db, job.public_id)).state.is_final:
        if wrong := next((process.gave_up for process in processes if process.gave_up), None):
            raise FatalError(wrong)
        time.sleep(LOOK_S)
    return job


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt  # so that databases, queues and processes are cleaned up


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _table(loads: list[Load], runs: list[dict[str, Any]]) -> None:
    """Print medians, one column per load, so that no figure is cut at 80 columns."""
    columns = (
        "texts",
        "workers",
        "engine",
        "policy",
        "ingest/s",
        "texts/s",
        "% of JSON",
        "% of COPY",
        "engine alone",
        "ms/shard of 1",
        "status p99 ms",
        "page p99 ms",
        "lost",
    )
    found: list[tuple[str, ...]] = []
    for load in loads:
        mine = [run for run in runs if all(run[key] == value for key, value in vars(load).items())]

        def median(get: Callable[[dict[str, Any]], Any], runs: list[dict[str, Any]] = mine) -> str:
            values = [value for run in runs if (value := get(run)) is not None]
            middle = statistics.median(values) if values else None
            return "-" if middle is None else f"{middle:,.2f}" if middle < ROUND_FROM else f"{middle:,.0f}"

        found.append(
            (
                load.size,
                str(load.workers),
                load.engine,
                "yes" if load.policy else "-",
                median(lambda run: run["ingest_texts_per_s"]),
                median(lambda run: run["texts_per_s"]),
                median(lambda run: _percent(run["yardstick"]["ingest_of_json"])),
                median(lambda run: _percent(run["yardstick"]["texts_of_copy"])),
                median(lambda run: run["engine_alone_texts_per_s"]),
                median(lambda run: run["shard_of_one_ms"]),
                median(lambda run: run["poll_ms"].get("status", {}).get("p99")),
                median(lambda run: run["poll_ms"].get("page", {}).get("p99")),
                str(sum(run["lost"] for run in mine)),
            )
        )
    head, *lines = zip(columns, *found, strict=True)
    terminal.say(terminal.listed(head, lines, to=terminal.notes, numbers=head[1:]))
