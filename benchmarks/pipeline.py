#!/usr/bin/env python3
"""Time the whole pipeline on a file of texts: submit, dispatch, judge, store. The last line printed is one JSON object.

    python benchmarks/pipeline.py ../shared/data/corpus.jsonl --broker amqp://guest:guest@127.0.0.1:5672// \
        --postgres postgresql://postgres@127.0.0.1:5432/postgres

Makes a database and a namespace of its own on the named servers, and drops the database afterwards. Without `--broker` and
`--postgres` the embedded stack is measured; `--engine model` judges with the demo model.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import uuid

import psycopg

from guardfleet.broker import make_app
from guardfleet.embedded.stack import Stack
from guardfleet.queues import Queues
from guardfleet.sealing import new_secret_key
from guardfleet.settings import Settings, load_settings
from guardfleet.states import JobState
from guardfleet.store import jobs, migrate, verdicts
from producer.client import Producer

PATIENCE_S = 1800


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts")
    parser.add_argument("--broker")
    parser.add_argument("--postgres")
    parser.add_argument("--engine", choices=["instant", "model"], default="instant")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--shard-texts", type=int, default=1024)
    args = parser.parse_args()
    name = f"gfbench_{uuid.uuid4().hex[:10]}"
    common = {"namespace": name, "engine": args.engine, "shard_texts": args.shard_texts, "log_level": "warning", "cache_hours": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder).chmod(0o755)
        if not args.postgres:
            stack = Stack(load_settings(data_dir=folder, **common), log_to_files=True)
            try:
                print(json.dumps({"broker": "embedded valkey"} | measure(stack.start_servers(), args.texts, args.workers)))
            finally:
                stack.stop()
            return
        url = args.postgres.rsplit("/", 1)[0] + f"/{name}"
        settings = load_settings(database_url=url, broker_url=args.broker, secret_key=new_secret_key(), **common)
        with psycopg.connect(args.postgres, autocommit=True) as admin:
            admin.execute(f"create database {name}")
            try:
                print(json.dumps({"broker": args.broker.split(":")[0]} | measure(settings, args.texts, args.workers)))
            finally:
                remove_queues(settings)
                admin.execute(f"drop database {name} with (force)")


def remove_queues(settings: Settings) -> None:
    """Leave the broker as it was."""
    queues = Queues.of(settings.namespace)
    with make_app(settings, "bench").connection_for_write() as connection, connection.channel() as channel:
        for queue in (*queues.lanes, queues.webhooks, queues.dead):
            channel.queue_delete(queue)
        if connection.transport.driver_type == "redis":
            left = list(channel.client.scan_iter(f"{settings.namespace}:*"))
            channel.client.delete(*(key.decode().removeprefix(f"{settings.namespace}:") for key in left))
            return
        for exchange in (*queues.lanes, queues.webhooks, queues.dead_exchange):
            channel.exchange_delete(exchange)


def measure(settings: Settings, texts: str, n_workers: int) -> dict[str, object]:
    """Run one job through processes of its own."""
    producer = Producer.connect(settings)
    migrate.upgrade(producer.db)
    started = time.perf_counter()
    job = producer.submit_file(texts).job
    ingest_s = time.perf_counter() - started
    commands = [["worker"]] * n_workers
    environment = os.environ | settings.as_environment()
    processes = [subprocess.Popen([sys.executable, "-m", "guardfleet", *command], env=environment) for command in commands]
    try:
        time.sleep(3 if settings.engine == "instant" else 10)  # the workers are up before the first doorbell rings
        started = time.perf_counter()
        processes.append(subprocess.Popen([sys.executable, "-m", "guardfleet", "dispatcher"], env=environment))
        while not (view := jobs.get(producer.db, job.public_id)).state.is_final and time.perf_counter() - started < PATIENCE_S:
            time.sleep(0.02)
        seconds = time.perf_counter() - started
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)
    with producer.db.begin() as connection:
        rows, distinct = connection.exec_driver_sql("select count(*), count(distinct seq) from verdict").one()
        first, last = connection.exec_driver_sql("select min(done_at), max(done_at) from verdict").one()
        work_s = (last - first).total_seconds()
        first_shard = connection.exec_driver_sql("select n from shard_done order by ord limit 1").scalar_one()
    started = time.perf_counter()
    exported = sum(1 for _ in verdicts.export(producer.db, view))
    export_s = time.perf_counter() - started
    producer.db.close()
    return {
        "texts": view.total,
        "engine": settings.engine,
        "workers": n_workers,
        "completed": view.state is JobState.COMPLETED,
        "lost": view.total - distinct,
        "double": rows - distinct,
        "without_model_run": view.saved,
        "ingest_texts_per_s": round(view.total / ingest_s),
        "texts_per_s": round((view.total - first_shard) / work_s) if work_s else None,
        "texts_per_s_with_start": round(view.total / seconds),
        "export_texts_per_s": round(exported / export_s),
    }


if __name__ == "__main__":
    main()
