#!/usr/bin/env python3
"""Compare what a real Prometheus has scraped of a whole fleet with the verdict table.

    python -m benchmarks.scrape --texts ../shared/data/corpus.jsonl --rows 3000 --keep boards

Starts PostgreSQL, RabbitMQ, a dispatcher, two workers with the demo model, a sender of webhooks, an API and a Prometheus on ports
of their own; submits the rows, some of them again, conversations, an empty and a long text, and a few over HTTP. Ends with status 1
if a count differs from the table. `--keep FOLDER` writes what the boards ask for there, for docs/panels.py. The last line of stdout
is one JSON.
"""

import argparse
import contextlib
import json
import pathlib
import re
import sys
import tempfile
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any

import httpx2
import yaml

from guardfleet.client.direct import DirectClient
from guardfleet.domain.options import JobOptions
from guardfleet.settings import Settings
from guardfleet.store import keys, migrate
from guardfleet.store.postgres.database import Database
from guardfleet.telemetry.metrics import BUCKETS_S, EVERY, OWNERS
from tests.services.fleet import Process, until
from tests.services.outcome import finished
from tests.services.prometheus import OwnPrometheus
from tests.services.receiver import Receiver
from tests.services.servers import free_port, own_servers

ROOT = pathlib.Path(__file__).parents[1]
HOURS_S = 4 * 3600.0
PROCESSES = {
    "dispatcher": ("dispatcher",),
    "worker0": ("worker",),
    "worker1": ("worker",),
    "webhooks": ("worker", "--webhooks"),
    "api": ("api",),
}
ON_A_GPU, BROKEN = "needs a GPU", "counts what went wrong, and nothing did"
WHY_STILL = {  # why a healthy run on CPUs does not move a metric
    "qwen_guard_gpu_memory_usage_bytes": ON_A_GPU,
    "guardfleet_gpu_memory_total_bytes": ON_A_GPU,
    "guardfleet_outages": BROKEN,
    "guardfleet_text_errors": "no text ended without a verdict",
    "guardfleet_texts_escalated": "needs a second model",
    "guardfleet_decisions": "needs a policy",
    "guardfleet_texts_undecided": "needs a policy of a newer release",
    "guardfleet_dispatcher_errors": BROKEN,
    "guardfleet_shards_rescued": BROKEN,
    "guardfleet_poison": BROKEN,
    "guardfleet_dead_letters": BROKEN,
    "guardfleet_shards_retrying": BROKEN,
    "guardfleet_deliveries_due": "each was delivered before the dispatcher counted",
    "guardfleet_delivery_oldest_seconds": "each was delivered before the dispatcher counted",
    "guardfleet_stalled_queues": "rightly 0",
    "guardfleet_jobs_late": "rightly 0",
    "guardfleet_jobs_late_worst_seconds": "rightly 0",
    "guardfleet_routes_without_worker": "rightly 0",
    "guardfleet_close_calls": "fp32 on a CPU has none",
}
# What is counted, and what the table says of it.
COUNTS = {
    "severity": ("result", "qwen_guard_request_total", "select severity, count(*) from verdicts group by 1"),
    "method": ("method", "qwen_guard_request_total", ""),
    "category": (
        "category",
        "guardfleet_texts_by_category_total",
        "select name, count(*) from verdicts, unnest(categories) as name group by 1",
    ),
    "error code": (
        "code",
        "guardfleet_text_errors_total",
        "select error, count(*) from verdicts where error is not null group by 1",
    ),
    "saved by": (
        "by",
        "guardfleet_texts_saved_total",
        "select served_by, count(*) from verdicts where served_by not in ('model', 'nobody') group by 1",
    ),
}


def main() -> int:
    """Run the fleet and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=pathlib.Path, default=ROOT.parent / "shared" / "data" / "corpus.jsonl")
    parser.add_argument("--rows", type=int, default=None)
    parser.add_argument("--keep", type=pathlib.Path, default=None)
    asked = parser.parse_args()
    rows = [json.loads(line) for line in asked.texts.read_text().split("\n")[: asked.rows] if line]
    found: dict[str, Any] = {"rows": len(rows)}
    with running() as (settings, prometheus, receiver, folder):
        responses = drive(settings, [{"id": row["id"], "text": row["text"]} for row in rows], receiver)
        with contextlib.closing(Database(settings.required("database_url"), pool_size=1)) as db:
            found["counts"] = compared(prometheus, db, responses)
        found |= shape(prometheus, folder)
        if asked.keep:
            keep(prometheus, asked.keep)
    wrong = [kind for kind, (scraped, stored) in found["counts"].items() if scraped != stored]
    for kind, (scraped, stored) in found["counts"].items():
        print(f"{kind:12} {'equal  ' if scraped == stored else 'DIFFERS'} scraped {scraped} stored {stored}")
    for name, why in found["still"].items():
        print(f"{name:45} did not move: {why}")
    print(json.dumps(found))
    return 1 if wrong or "?" in found["still"].values() else 0


@contextlib.contextmanager
def running() -> Iterator[tuple[Settings, OwnPrometheus, Receiver, pathlib.Path]]:
    """Start servers, a fleet and a Prometheus that scrapes it every second."""
    overrides = {"webhook_allow_networks": ("127.0.0.0/8",), "api_port": free_port(), "shard_texts": 256}
    with own_servers("rabbitmq", engine="model", **overrides) as (settings, _, folder), contextlib.ExitStack() as stack:
        with contextlib.closing(Database(settings.required("database_url"), pool_size=1)) as db:
            migrate.upgrade(db)
        ports = {name: free_port() for name in PROCESSES}
        for name, args in PROCESSES.items():
            process = Process(settings.but(metrics_port=ports[name]), *args, log=folder / f"{name}.log")
            stack.callback(process.stop)
        kept = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        prometheus = OwnPrometheus(kept)
        stack.callback(prometheus.stop)
        targets = {f"127.0.0.1:{port}" for port in ports.values()}
        prometheus.start(targets, every="1s")
        until(lambda: prometheus.answering() == targets, timeout_s=HOURS_S, what="a scrape of each process")
        until(lambda: prometheus.value('count(guardfleet_model_info{model!=""})') == 2, timeout_s=HOURS_S, what="two loaded models")  # noqa: PLR2004 - workers
        yield settings, prometheus, Receiver(), folder


def drive(settings: Settings, rows: list[dict[str, str]], receiver: Receiver) -> int:
    """Submit all that moves a metric, and wait for its end; return how many texts were responses."""
    some = rows[:200]
    talks = [
        {"messages": [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": "Here you are."}]} for row in some
    ]
    odd = [{"id": "empty", "text": ""}, {"id": "long", "text": "A long story about a harbour town. " * 4000}]
    with DirectClient.connect(settings) as client:
        key = keys.create(client.db, client.keyring, name="scrape")
        whole = JobOptions(name="the corpus", completion_window="1d", callback_url=receiver.url)
        for texts, options in (
            (rows, whole),
            (some, JobOptions(name="again")),
            (talks, JobOptions(name="responses")),
            (odd, JobOptions()),
        ):
            finished(client, client.submit(texts, options).job, timeout_s=HOURS_S)
        with httpx2.Client(
            base_url=f"http://127.0.0.1:{settings.api.port}", headers={"authorization": f"Bearer {key}"}, timeout=60
        ) as http:
            for row in some[:5]:
                http.post("/v1/moderations", json={"input": f"{row['text']} please"}).raise_for_status()
            http.get("/v1/batches").raise_for_status()
            http.get("/v1/none")
        until(lambda: receiver.got, timeout_s=HOURS_S, what="the webhook")
    return len(talks)


def compared(prometheus: OwnPrometheus, db: Database, responses: int) -> dict[str, tuple[dict[str, int], dict[str, int]]]:
    """Return each kind of count as scraped, once it no longer moves, and as stored."""
    out = {}
    with db.begin() as connection:
        total = int(connection.scalar("select count(*) from verdicts") or 0)
        until(lambda: prometheus.value("sum(qwen_guard_request_total)") == total, timeout_s=60, what=f"{total} texts scraped")
        for kind, (label, metric, query) in COUNTS.items():
            found = prometheus.ask(f"sum by ({label}) ({metric}) > 0")
            scraped = {one["metric"][label]: int(float(one["value"][1])) for one in found}
            stored = dict(connection.execute(query).fetchall()) if query else {"prompt": total - responses, "response": responses}
            out[kind] = (dict(sorted(scraped.items())), dict(sorted(stored.items())))
    return out


def shape(prometheus: OwnPrometheus, folder: pathlib.Path) -> dict[str, Any]:
    """Return what is known of durations, series, scrapes, and of metrics that did not move."""
    scraped_s = prometheus.value("histogram_quantile(0.99, sum by (le) (qwen_guard_request_duration_seconds_bucket))")
    logged_s = logged_p99_s([path.read_text() for path in folder.glob("worker*.log")])
    series = prometheus.ask("max_over_time(scrape_samples_scraped[1d])")
    typical_s = prometheus.value("max(quantile_over_time(0.5, scrape_duration_seconds[1d]))")
    slowest_s = prometheus.value("max(max_over_time(scrape_duration_seconds[1d]))")
    return {
        "p99_s": {"scraped": scraped_s, "logged": logged_s, "buckets_apart": _bucket(scraped_s or 0.0) - _bucket(logged_s)},
        "series": {one["metric"]["instance"]: int(float(one["value"][1])) for one in series},
        "scrape_s": {"median": typical_s, "slowest": slowest_s},
        "rate_texts_per_s": prometheus.value("max_over_time(guardfleet:texts:rate5m[1d])"),
        "still": still(prometheus),
    }


def _bucket(seconds: float) -> int:
    return bisect_left(BUCKETS_S, seconds)


def logged_p99_s(logs: list[str]) -> float:
    """Return the P99 of a text's duration by the lines about finished shards, weighted by their texts."""
    lines = [json.loads(line) for log in logs for line in log.splitlines() if '"shard_finished"' in line]
    by_duration = sorted((line["guardfleet.seconds"], line["guardfleet.texts"]) for line in lines)
    left = 0.99 * sum(texts for _, texts in by_duration)
    for seconds, texts in by_duration:
        left -= texts
        if left <= 0:
            return float(seconds)
    return 0.0


def still(prometheus: OwnPrometheus) -> dict[str, str]:
    """Return the metrics that were never anything but 0, or never there, with the reason; `?` if none is known."""
    out = {}
    for family in (
        family for metric in {*EVERY, *(one for owned in OWNERS.values() for one in owned)} for family in metric.describe()
    ):
        suffix = {"counter": "_total", "histogram": "_count", "info": "_info"}.get(family.type, "")
        if not prometheus.value(f"max(max_over_time({family.name}{suffix}[1d]))"):
            out[family.name] = WHY_STILL.get(family.name, "?")
    return dict(sorted(out.items()))


def keep(prometheus: OwnPrometheus, folder: pathlib.Path) -> None:
    """Write the answers to all queries of the boards over the whole run."""
    folder.mkdir(parents=True, exist_ok=True)
    begun = prometheus.value("min(min_over_time(timestamp(up)[6h:5s]))") or 0.0
    ends = prometheus.value("time()") or 0.0
    window = f"{max(15, int((ends - begun) / 10))}s"  # a run is shorter than the windows of the boards
    answers: dict[str, Any] = {}
    for panels in yaml.safe_load((ROOT / "deploy" / "grafana" / "boards.yml").read_text()).values():
        for expr in (expr for panel in panels for expr in panel["queries"].values()):
            asked = re.sub(r"\[(5m|1h|1d)\]", f"[{window}]", expr.replace("$price_per_hour", "2.5"))
            span = {"start": str(begun), "end": str(ends), "step": f"{max(1, int((ends - begun) / 200))}s"}
            answers[expr] = prometheus.get("/api/v1/query_range", query=asked, **span)["data"]["result"]
    (folder / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    sys.exit(main())
