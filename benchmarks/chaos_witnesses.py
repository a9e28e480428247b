"""Observers of a fleet while it is broken: a webhook receiver, a reader of results, and the final state of rows and logs."""

import contextlib
import http.client
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from benchmarks.chaos_site import Site
from benchmarks.chaos_texts import Source
from guardfleet.store.jobs.views import JobView

PATIENCE_S = 1800.0
STEP_S = 0.3
REFUSED = 0.2  # share of the webhooks that is refused, so that they are sent again


@dataclass
class Receiver:
    """Accepts webhooks, but refuses one in five, so that they are sent again. Counts events by id."""

    rng: random.Random
    taken: Counter[str] = field(default_factory=Counter)

    def __enter__(self) -> str:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                refused = receiver.rng.random() < REFUSED
                if not refused:
                    receiver.taken[self.headers.get("webhook-id", "")] += 1
                self.send_response(500 if refused else 204)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Reader:
    """Pages through a job's results by cursor while everything breaks; must see each text once."""

    site: Site
    key: str
    seen: Counter[str] = field(default_factory=Counter)
    failed: int = 0

    def read(self, label: str) -> None:
        """Read to the end."""
        after, deadline = "", time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                page = self._page(label, after)
            except (OSError, http.client.HTTPException, ValueError):
                page = None
            if page is None:
                self.failed += 1
                time.sleep(STEP_S)
                continue
            self.seen.update(row["id"] for row in page["data"])
            after = f"&after={page['next']}"
            if page["complete"]:
                return
            if not page["data"]:
                time.sleep(STEP_S)

    def _page(self, label: str, after: str) -> dict[str, Any] | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.site.api_port, timeout=20)
        with contextlib.closing(connection):
            path = f"/v1/batches/{label.replace('job_', 'batch_')}/results?limit=2000{after}"
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.key}"})
            answer = connection.getresponse()
            body = json.loads(answer.read())
            return body if answer.status == http.client.OK else None


def judge(site: Site, sources: list[Source], found: list[JobView], readers: list[Reader], receiver: Receiver) -> dict[str, Any]:
    """Compare the rows with what was submitted: every input row must be in exactly one count, and in the right one."""
    told = dict.fromkeys(("lost", "double", "wrong_verdicts", "wrong_refusals", "wrong_counters"), 0)
    with site.db.begin() as connection:
        for source, job, reader in zip(sources, found, readers, strict=True):
            rows, distinct, safe, flagged, failed = connection.execute(
                f"""select count(*), count(distinct seq) as seqs, count(*) filter (where severity = 0) as safe,
                           count(*) filter (where severity = 2) as unsafe, count(*) filter (where severity = 3) as error
                    from verdict where job_id = {job.id}"""  # noqa: S608
            ).fetchone()
            right = source.outcomes
            told["lost"] += source.taken - distinct + source.taken - len(reader.seen)
            told["double"] += rows - distinct + sum(n - 1 for n in reader.seen.values())
            told["wrong_verdicts"] += abs(safe - right["safe"]) + abs(flagged - right["flagged"]) + abs(failed - right["failed"])
            told["wrong_refusals"] += abs(job.rejected - right["refused"])
            told["wrong_counters"] += (job.total, job.done, job.safe, job.unsafe, job.error) != (rows, rows, safe, flagged, failed)
        all_jobs, events = connection.execute(
            "select (select count(*) from job) as jobs, (select count(*) from delivery) + (select count(*) from outbox) as events"
        ).fetchone()
    return {
        "texts": sum(source.taken for source in sources),
        "refused": sum(source.outcomes["refused"] for source in sources),
        "submits": len(sources),
        "states": dict(Counter(job.state.label for job in found)),
        **told,
        "jobs": all_jobs,
        "completion_events": events,
        "events_received": len(receiver.taken),
        "failed_polls": sum(reader.failed for reader in readers),
        "ended_by_itself": {process.name: process.own_ends for process in site.processes if process.own_ends},
    }


def said(site: Site) -> dict[str, int]:
    """Count what the processes logged about rescues."""
    names = {"shard_fenced": "fenced", "shard_rescued": "rescued", "shard_released": "released", "messages_lost": "republished",
             "delivery_failed": "deliveries_refused"}  # fmt: skip
    out = dict.fromkeys(names.values(), 0)
    for process in site.processes:
        for line in process.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict) and event.get("message") in names:
                    out[names[event["message"]]] += event.get("guardfleet.n", 1)
    return out
