#!/usr/bin/env python3
"""Take away the broker, the database, the last worker and a model in turn, and time who says so.

    python -m benchmarks.outages

Runs a dispatcher, a worker, a sender of webhooks and an API behind proxies before the machine's PostgreSQL and Redis, and a
Prometheus with the shipped rules that scrapes every 5 s. Prints the seconds until health, metric, log and alert say it, and until
they say that it is over. The last line of stdout is one JSON.
"""

import json
import pathlib
import signal
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from guardfleet.client.direct import DirectClient
from guardfleet.settings import Settings, load_settings
from guardfleet.store import migrate
from guardfleet.store.postgres.database import Database
from tests.services.databases import database_on, unique
from tests.services.fixtures import POSTGRES, REDIS, SECRET_KEY
from tests.services.fleet import Process, until
from tests.services.prometheus import OwnPrometheus
from tests.services.proxy import in_front_of
from tests.services.servers import free_port

EVERY = "5s"
BRIEFLY = {"[10m:15s]": "[1m:15s]"}  # the alert is about work that there has been for ten minutes: here, for one
WAITED_S = 70.0
PROCESSES = {"dispatcher": ("dispatcher",), "worker": ("worker",), "webhooks": ("worker", "--webhooks"), "api": ("api",)}
Saying = dict[str, Callable[[], object]]


class Site:
    """The processes, their ports and logs, and Prometheus."""

    def __init__(self, settings: Settings, folder: pathlib.Path) -> None:
        self.settings, self.folder = settings, folder
        self.ports = {name: free_port() for name in PROCESSES}
        self.running: dict[str, Process] = {}
        self.prometheus = OwnPrometheus(folder)

    def start(self, name: str, **changed: Any) -> None:
        """Start a process on its port."""
        own = self.settings.but(metrics_port=self.ports[name], api_port=free_port(), **changed)
        self.running[name] = Process(own, *PROCESSES[name], log=self.log(name))

    def log(self, name: str) -> pathlib.Path:
        """Return the path of its log."""
        return self.folder / f"{name}.log"

    def stop(self) -> None:
        """End everything."""
        self.prometheus.stop()
        for process in self.running.values():
            process.stop()

    def status(self, name: str) -> str:
        """Return its health in a word and its reasons."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/healthz", timeout=5) as answer:
                return str(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return str(error.read())
        except OSError:
            return "gone"

    def said(self, name: str, *words: str) -> int:
        """Return how many lines of its log have all words."""
        return sum(all(word in line for word in words) for line in self.log(name).read_text(errors="replace").splitlines())

    def value(self, name: str, start: str) -> str | None:
        """Return the value of the series whose line begins so."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[name]}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return None
        return next((line.rpartition(" ")[2] for line in lines if line.startswith(start)), None)


@contextmanager
def site(folder: pathlib.Path) -> Iterator[tuple[Site, Any, Any]]:
    """Run the fleet on a database of its own."""
    name = unique()
    with psycopg.connect(POSTGRES, autocommit=True) as admin:
        admin.execute(f"create database {name}")
        try:
            with in_front_of(database_on(POSTGRES, name)) as (database, url), in_front_of(REDIS) as (broker, broker_url):
                settings = load_settings(
                    database_url=url,
                    broker_url=broker_url,
                    secret_key=SECRET_KEY,
                    namespace=name,
                    data_dir=folder,
                    engine="instant",
                )
                db = Database(url)
                migrate.upgrade(db)
                db.close()
                here = Site(settings, folder)
                for process in PROCESSES:
                    here.start(process)
                here.prometheus.start([f"127.0.0.1:{port}" for port in here.ports.values()], every=EVERY, changed=BRIEFLY)
                try:
                    yield here, database, broker
                finally:
                    here.stop()
        finally:
            admin.execute(f"drop database if exists {name} with (force)")


def timed(saying: Saying) -> dict[str, float]:
    """Return after how many seconds each of them became true."""
    began, found = time.monotonic(), dict[str, float]()

    def look() -> bool:
        for name, says in saying.items():
            if name not in found and says():
                found[name] = round(time.monotonic() - began, 1)
        return len(found) == len(saying)

    until(look, what=f"{set(saying) - set(found)}")
    return found


def server(here: Site, proxy: Any, name: str, who: str) -> dict[str, dict[str, float]]:
    """Take a server away and bring it back."""
    alert = "GuardfleetDependencyAway"
    series = f'guardfleet_dependency_up{{dependency="{name}"}}'
    proxy.go_away()
    begins = timed({
        "health": lambda: f"{name}:" in here.status(who),
        "metric": lambda: here.value(who, series) == "0.0",
        "log": lambda: here.said(who, "outage_began", f'"{name}"'),
        "alert": lambda: alert in here.prometheus.firing(),
    })  # fmt: skip
    proxy.come_back()
    ends = timed({
        "health": lambda: f"{name}:" not in here.status(who),
        "metric": lambda: here.value(who, series) == "1.0",
        "log": lambda: here.said(who, "outage_ended", f'"{name}"'),
        "alert": lambda: alert not in here.prometheus.firing(),
    })  # fmt: skip
    return {"begins": begins, "ends": ends}


def no_worker(here: Site, begin: Callable[[], None], log: Callable[[], object]) -> dict[str, dict[str, float]]:
    """Take the last worker away while there is work, by `begin`, and start one again."""
    before = here.said("dispatcher", "health_changed", "healthy")
    begin()
    begins = timed({
        "health": lambda: "no worker for any" in here.status("dispatcher"),
        "metric": lambda: here.value("dispatcher", "guardfleet_routes_without_worker") == "1.0",
        "log": log,
        "alert": lambda: "GuardfleetLastWorkerGone" in here.prometheus.firing(),
    })  # fmt: skip
    here.start("worker")
    ends = timed({
        "health": lambda: "no worker" not in here.status("dispatcher"),
        "metric": lambda: here.value("dispatcher", "guardfleet_routes_without_worker") == "0.0",
        "log": lambda: here.said("dispatcher", "health_changed", "healthy") > before,
        "alert": lambda: "GuardfleetLastWorkerGone" not in here.prometheus.firing(),
    })  # fmt: skip
    return {"begins": begins, "ends": ends}


def main() -> None:
    """Run all, print the table."""
    with tempfile.TemporaryDirectory() as folder, site(pathlib.Path(folder)) as (here, database, broker):
        until(lambda: all('"healthy"' in here.status(name) for name in PROCESSES), what="a fleet that is well")
        until(lambda: len(here.prometheus.answering()) == len(PROCESSES), what="a scrape of each")
        found = {
            "broker away": server(here, broker, "broker", "worker"),
            "database away": server(here, database, "database", "api"),
        }
        client = DirectClient.connect(here.settings.but(shard_texts=100))
        client.submit([f"{'word ' * 2000}{i}" for i in range(20_000)])
        here.running["worker"].stop()
        here.start("worker", instant_ms_per_batch=2000.0)  # so slow that work is left
        began = time.monotonic()
        until(lambda: time.monotonic() - began > WAITED_S, what="work that has waited for a minute")
        kill = lambda: here.running["worker"].signal(signal.SIGKILL)  # noqa: E731
        found["last worker killed"] = no_worker(here, kill, lambda: here.said("dispatcher", "health_changed", "no worker"))
        here.running["worker"].stop()

        def damaged() -> None:
            here.start("worker", engine="model", model=folder)

        found["model cannot be loaded"] = no_worker(here, damaged, lambda: here.said("worker", "model_failed"))
        client.db.close()
    print("| what | says it after, s: health | metric | log | alert | over: health | metric | log | alert |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, both in found.items():
        cells = [both[when][who] for when in ("begins", "ends") for who in ("health", "metric", "log", "alert")]
        print(f"| {name} | {' | '.join(f'{cell:.1f}' for cell in cells)} |")
    print(json.dumps(found))


if __name__ == "__main__":
    sys.exit(main())
