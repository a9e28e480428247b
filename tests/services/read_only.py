"""A fleet whose PostgreSQL turns read-only in the middle of a job, as a managed one does when it is full; and a record of it."""

import pathlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import psycopg

from guardfleet.client.direct import DirectClient
from guardfleet.domain.options import JobOptions
from guardfleet.domain.states import JobState
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import keys, migrate
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from tests.services.fleet import fleet, until
from tests.services.outcome import finished, progressed
from tests.services.receiver import Receiver
from tests.services.servers import OwnPostgres, free_port

TEXT, NAME, URL = "canary-text-51", "canary-name-52", "/canary-url-53"
COMMANDS = [("dispatcher",), ("worker",), ("worker", "--webhooks"), ("api",)]


@dataclass
class Seen:
    """What a fleet did while its database took no writes, and after."""

    lost: int = -1
    double: int = -1
    errors: int = -1
    ended: list[str] = field(default_factory=list)  # processes
    writes: dict[str, int] = field(default_factory=dict)  # answers of the API, by status
    ready: dict[str, int] = field(default_factory=dict)
    canaries: list[str] = field(default_factory=list)
    webhooks: int = 0
    goes_on_after_s: float = -1.0


@contextmanager
def read_only(url: str) -> Iterator[None]:
    """Make the server read-only, except for sessions that ask to write."""
    with psycopg.connect(url, autocommit=True, options="-c default_transaction_read_only=off") as server:
        server.execute("alter system set default_transaction_read_only = on")
        server.execute("select pg_reload_conf()")
        try:
            yield
        finally:
            server.execute("alter system reset default_transaction_read_only")
            server.execute("select pg_reload_conf()")


def weather(
    settings: Settings, server: OwnPostgres, receiver: Receiver, folder: pathlib.Path, *, texts: int, seconds: float
) -> Seen:
    """Run a job of `texts` through `seconds` without writes."""
    port, seen = free_port(), Seen()
    settings = settings.but(api_port=port, shard_texts=20)
    migrate.upgrade(made := Database(server.url, pool_size=1))
    made.close()
    producer = DirectClient.connect(settings)
    key = keys.create(producer.db, Keyring(settings.required("secret_key")), name=NAME)
    hook = receiver.url.replace("/hook", URL)
    headers = {"authorization": f"Bearer {key}"}
    try:
        with (
            httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as client,
            fleet(settings, folder, *COMMANDS) as processes,
        ):
            until(lambda: _status(client, "/readyz") == "200", what="the API")
            job = producer.submit([f"{TEXT} {i}" for i in range(texts)], JobOptions(name=NAME, callback_url=hook)).job
            progressed(producer, job, texts // 10)
            with read_only(server.url):
                until(lambda: _status(client, "/readyz") == "503", what="an API that is not ready")
                before = views.get(producer.db, job.public_id).done
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    ask(client, hook, seen)
                stood = views.get(producer.db, job.public_id).done
            writable_at = time.monotonic()
            assert stood - before <= 4 * settings.intake.shard_texts, "writes went on"
            progressed(producer, job, stood + 1)
            seen.goes_on_after_s = round(time.monotonic() - writable_at, 1)
            done = finished(producer, job, timeout_s=240)
            assert done.state is JobState.COMPLETED
            until(lambda: receiver.got, what="the webhook")
            until(lambda: _status(client, "/readyz") == "200", what="an API that is ready again")
            seen.ended = [p.log.stem for p in processes if p.process.poll() is not None]
        _count(producer, done.id, texts, seen)
        seen.errors, seen.webhooks = done.error, len(receiver.got)
        seen.canaries = [
            f"{canary} in {log.name}" for log in folder.glob("*.log") for canary in (TEXT, NAME, URL) if canary in log.read_text()
        ]
    finally:
        producer.db.close()
    return seen


def ask(client: httpx2.Client, hook: str, seen: Seen) -> None:
    """One write of each kind, and whether the API is ready."""
    row = {"content": f'{{"id": "1", "text": "{TEXT}"}}', "headers": {"content-type": "application/jsonl"}}
    endpoint = {"name": NAME, "url": hook, "event_types": ["batch.completed"]}
    asked: list[tuple[str, dict[str, Any]]] = [
        (f"/v1/batches?name={NAME}&callback_url={hook}", row),
        ("/v1/moderations", {"json": {"input": TEXT}}),
        ("/v1/webhook_endpoints", {"json": endpoint}),
        ("/v1/files", {"files": {"file": ("a.jsonl", row["content"])}, "data": {"purpose": "batch"}}),
    ]
    for path, more in asked:
        answer = client.post(path, **more)
        count(seen.writes, f"{answer.status_code}{' retry-after' if 'retry-after' in answer.headers else ''}")
    count(seen.ready, _status(client, "/readyz"))


def count(counts: dict[str, int], what: str) -> None:
    counts[what] = counts.get(what, 0) + 1


def _status(client: httpx2.Client, path: str) -> str:
    try:
        return str(client.get(path).status_code)
    except httpx2.HTTPError as error:
        return type(error).__name__


def _count(producer: DirectClient, job_id: int, texts: int, seen: Seen) -> None:
    with producer.db.begin() as connection:
        rows, distinct = connection.execute(
            f"select count(*), count(distinct seq) as n_seqs from verdict where job_id = {job_id}"
        ).fetchone()
    seen.lost, seen.double = texts - distinct, rows - distinct
