"""Where a benchmark runs: its own database and queues, a file of texts, processes whose memory is measured."""

import http.client
import json
import pathlib
import random
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from guardfleet.cli.bench import scratch
from guardfleet.cli.bench.scratch import scratch_database
from guardfleet.embedded.stack import Stack
from guardfleet.errors import ConfigurationError, FatalError
from guardfleet.process.supervisor import Child
from guardfleet.security.encryption import new_secret_key
from guardfleet.settings import Settings, load_settings
from guardfleet.store import migrate
from guardfleet.store.postgres.database import Database

START_S = 120.0
WORDS = "the quick brown fox jumps over lazy dogs while seven wizards box with grey liquid and nobody seems to mind".split()  # noqa: SIM905


@contextmanager
def environment(postgres: str | None, broker: str | None, **values: Any) -> Iterator[Settings]:
    """Yield complete settings for migrated servers of the benchmark's own; embedded ones if none are named."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder).chmod(0o755)  # the embedded servers' user must be able to enter
        common = {"data_dir": folder, "log_level": "warning", **values}
        if postgres is None:
            stack = Stack(load_settings(**common), log_to_files=True)
            try:
                yield stack.start_servers()
            finally:
                stack.stop()
            return
        if broker is None:
            raise ConfigurationError("--postgres needs --broker too.")
        with scratch_database(postgres) as (name, url):
            settings = load_settings(database_url=url, broker_url=broker, secret_key=new_secret_key(), namespace=name, **common)
            db = Database(url, pool_size=1)
            try:
                migrate.upgrade(db)
                yield settings
            finally:
                _remove_queues(settings, scratch.served_models(db))
                db.close()


def write_texts(path: pathlib.Path, n: int, *, first: int = 0, duplicates: float = 0.0, source: str | None = None) -> None:
    """Write a JSONL file of `n` rows. A share `duplicates` of them repeats earlier texts; texts of `source` get a number to differ.

    Numbers count up from `first`, so that files of different ranges share no text.
    """
    rng = random.Random(7)
    texts = _texts_of(source) if source else [" ".join(rng.choices(WORDS, k=rng.randint(8, 60))) for _ in range(1000)]
    unique = max(1, round(n * (1 - duplicates)))
    with path.open("w", encoding="utf-8") as file:
        for i in range(n):
            j = i if i < unique else rng.randrange(unique)
            file.write(json.dumps({"id": f"r{i}", "text": f"{texts[j % len(texts)]} #{first + j}"}) + "\n")


def start(settings: Settings, name: str, *args: str, says: str | None = None) -> Child:
    """Start a process of the fleet; return once its log has the event `says`."""
    log = settings.data_dir / f"{name}.log"
    child = Child(name, args, settings.but(log_level="info").as_environment() if says else settings.as_environment(), log)
    child.start()
    deadline = time.monotonic() + START_S
    while says and (not log.exists() or f'"{says}"' not in log.read_text(errors="replace")):
        if time.monotonic() > deadline or child.gave_up:
            child.stop()
            raise ConfigurationError(f"{name} did not start: {child.last_words()}")
        time.sleep(0.1)
    return child


def peak_mib(pid: int | None) -> float | None:
    """Return the peak resident memory of a process in MiB."""
    with suppress(OSError, TypeError):
        found = re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text())
        return round(int(found[1]) / 1024, 1) if found else None
    return None


def until(look: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Wait until `look` returns true. Raises FatalError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not look():
        if time.monotonic() > deadline:
            raise FatalError(f"{what} did not answer in {timeout_s:.0f} s.")
        time.sleep(0.05)


def answers(port: int) -> bool:
    """Return whether an API answers on this port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def asking(port: int, key: str) -> Callable[..., bytes]:
    """Return a client of the API, on one connection: the body of an answer that is no error, else RuntimeError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    def ask(method: str, path: str, body: object = None) -> bytes:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"the API answered {answer.status}: {said[:200]!r}")
        return said

    return ask


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _texts_of(source: str) -> list[str]:
    from producer.readers import read

    found = [row.content for _, row in read(source, max_text_bytes=1 << 20) if not isinstance(row, Exception)]
    texts = [content for content in found if isinstance(content, str)]
    if not texts:
        raise ConfigurationError(f"{source} has no texts.")
    return texts


def _remove_queues(settings: Settings, models: list[str]) -> None:
    """Delete the benchmark's queues from the broker."""
    from guardfleet.broker.celery_app import make_app
    from guardfleet.domain.lanes import Lane, Queues

    queues = Queues.of(settings.namespace)
    with make_app(settings, "bench").connection_for_write() as connection, connection.channel() as channel:
        if connection.transport.driver_type == "redis":
            prefix = f"{settings.namespace}:"
            for key in list(channel.client.scan_iter(f"{prefix}*")):
                channel.client.delete(key.decode().removeprefix(prefix))
            return
        named = [queues.of_model(lane, model) for lane in Lane for model in models]
        for queue in (*queues.lanes, *named, queues.webhooks, queues.dead):
            channel.queue_delete(queue)
        for exchange in (*queues.lanes, *named, queues.webhooks, queues.dead_exchange):
            channel.exchange_delete(exchange)
