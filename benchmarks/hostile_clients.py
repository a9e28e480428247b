"""Measure what hostile clients cost others: bodies of newlines, of refused lines, of values; idle and waiting connections.

    python benchmarks/hostile_clients.py --postgres postgresql://postgres@127.0.0.1:5432/postgres

Starts an API of its own with 1,024 descriptors, the usual limit of a process. Prints one JSON: the worst seconds of `/livez`, the
median milliseconds of a listing with and without waiting clients, and the API's peak memory.
"""

import argparse
import contextlib
import http.client
import json
import resource
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from backports import zstd

from guardfleet.cli.bench.scratch import scratch_database
from guardfleet.cli.bench.site import answers, free_port, peak_mib, start, until
from guardfleet.process.supervisor import Child
from guardfleet.security.encryption import Keyring, new_secret_key
from guardfleet.settings import Settings, load_settings
from guardfleet.store import keys, migrate
from guardfleet.store.postgres.database import Database

DESCRIPTORS = 1024
BODIES = {  # each a megabyte or less as sent
    "newlines": zstd.compress(b"\n" * (30 << 20)),
    "refused lines": zstd.compress(b"{bad\n" * 200_000),
    "values": b'{"input": "a", "x": [' + b"[]," * 24_000 + b"0]}",
}
LOOK_S = 0.05
TIMEOUT_S = 60.0
HELD_S = 3.0
REQUESTS = 60
LINE = b'{"text": "a text that nobody judges here"}'


class Api:
    """The API under attack, and requests to it with one key."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self._headers = port, {"Authorization": f"Bearer {key}"}

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, float]:
        """Return status, body and seconds of one request on a connection of its own; status 0 if it was not answered."""
        connection, began = self.begin(method, path, body, **headers), time.monotonic()
        with contextlib.closing(connection):
            try:
                answer = connection.getresponse()
                return answer.status, answer.read(), time.monotonic() - began
            except (OSError, http.client.HTTPException):
                return 0, b"", time.monotonic() - began

    def begin(self, method: str, path: str, body: bytes | None = None, **headers: str) -> http.client.HTTPConnection:
        """Send a request without reading its answer yet."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.suppress(OSError):
            connection.request(method, path, body=body, headers=self._headers | names)
        return connection

    @contextlib.contextmanager
    def probed(self) -> Iterator[list[float]]:
        """Probe `/livez` twenty times a second meanwhile; yields the seconds of each probe, infinite if it failed."""
        seconds: list[float] = []
        ended = threading.Event()

        def probe() -> None:
            while not ended.wait(LOOK_S):
                status, _, took = self.ask("GET", "/livez")
                seconds.append(took if status == http.client.OK else float("inf"))

        thread = threading.Thread(target=probe)
        thread.start()
        try:
            yield seconds
        finally:
            ended.set()
            thread.join()


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", required=True, help="server on which a database may be created and dropped")
    parser.add_argument("--bodies", type=int, default=5, help="number of bodies with 30 MiB of newlines each, sent concurrently")
    parser.add_argument("--idle", type=int, default=1_100, help="connections that send nothing")
    parser.add_argument("--waiting", type=int, default=300, help="clients that wait for news of a batch")
    asked = parser.parse_args()
    with under_attack(asked) as (api, child):
        found: dict[str, Any] = {"mib_at_first": peak_mib(child.pid), "calm": calm(api)}
        for name in BODIES:
            found[name] = bodies(api, name, asked.bodies) | {"mib_at_most": peak_mib(child.pid)}
        found["idle"] = idle(api, asked.idle)
        found["waiting"] = waiting(api, asked.waiting)
    print(json.dumps(found))
    return 0


@contextlib.contextmanager
def under_attack(asked: argparse.Namespace) -> Iterator[tuple[Api, Child]]:
    """Start an API with a database of its own. A key has as many slots as there will be waiting clients."""
    with tempfile.TemporaryDirectory() as folder, scratch_database(asked.postgres) as (_, url):
        port, secret = free_port(), new_secret_key()
        settings = load_settings(
            database_url=url, secret_key=secret, data_dir=folder, api_port=port, api_max_waiting=max(1, asked.waiting)
        )
        key = _prepared(settings)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard))  # for the process that is started now
        child = start(settings, "api", "api")
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * asked.idle)), hard))
        try:
            until(lambda: answers(port), TIMEOUT_S, "the API")
            yield Api(port, key), child
        finally:
            child.stop()


def _prepared(settings: Settings) -> str:
    db = Database(settings.required("database_url"), pool_size=1)
    try:
        migrate.upgrade(db)
        return keys.create(db, Keyring(settings.required("secret_key")), name="bench")
    finally:
        db.close()


def calm(api: Api) -> dict[str, Any]:
    """Return the worst probe while nothing happens."""
    with api.probed() as probes:
        time.sleep(HELD_S)
    return {"livez_worst_s": round(max(probes), 3)}


def bodies(api: Api, name: str, n: int) -> dict[str, Any]:
    """Send `n` bodies of one kind at once: newlines that decompress to 30 MiB, refused lines, or JSON with very many values."""
    statuses: list[int] = []
    lines = {"content_type": "application/jsonl", "content_encoding": "zstd"}
    path, headers = ("/v1/moderations", {"content_type": "application/json"}) if name == "values" else ("/v1/batches", lines)

    def send() -> None:
        status, _, _ = api.ask("POST", path, BODIES[name], **headers)
        statuses.append(status)

    with api.probed() as probes:
        _all_at_once(send, n)
    worst = round(max(probes, default=0.0), 3)  # without a probe, all were answered before the first
    return {"bodies": n, "bytes_each": len(BODIES[name]), "statuses": sorted(statuses), "livez_worst_s": worst}


def idle(api: Api, n: int) -> dict[str, Any]:
    """Open connections on which nothing is ever sent."""
    held = []
    try:
        with contextlib.suppress(OSError):
            held += [socket.create_connection(("127.0.0.1", api.port), timeout=TIMEOUT_S) for _ in range(n)]
        with api.probed() as probes:
            time.sleep(HELD_S)
    finally:
        for connection in held:
            connection.close()
    answered = sum(seconds != float("inf") for seconds in probes)
    return {"connections": len(held), "probes": len(probes), "answered": answered, "livez_worst_s": round(max(probes), 3)}


def waiting(api: Api, n: int) -> dict[str, Any]:
    """Wait for a batch that nobody judges: half as server-sent events, half as long polls."""
    _, made, _ = api.ask("POST", "/v1/batches", LINE, content_type="application/jsonl")
    batch = json.loads(made)["id"]
    before = _listing_ms(api)
    held = [
        api.begin("GET", f"/v1/batches/{batch}/events", accept="text/event-stream")
        if i % 2
        else api.begin("GET", f"/v1/batches/{batch}/results", prefer="wait=30")
        for i in range(n)
    ]
    try:
        meanwhile = _listing_ms(api)
    finally:
        for connection in held:
            connection.close()
    return {"clients": n, "listing_ms": before, "listing_ms_meanwhile": meanwhile, "times": round(meanwhile / before, 2)}


def _listing_ms(api: Api) -> float:
    asked = [api.ask("GET", "/v1/batches?limit=20") for _ in range(REQUESTS)]
    refused = [status for status, _, _ in asked if status != http.client.OK]
    if refused:
        raise SystemExit(f"a listing was answered {refused[0]}.")
    return round(1000 * statistics.median(seconds for _, _, seconds in asked), 1)


def _all_at_once(act: Callable[[], None], n: int) -> None:
    threads = [threading.Thread(target=act) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
