"""An outage is told by each process: in its health, its metrics and its log, when it begins and when it is over."""

import json
import pathlib
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from guardfleet.client.direct import DirectClient
from guardfleet.settings import Settings
from tests.services.fixtures import fleet_settings
from tests.services.fleet import Process, until
from tests.services.outcome import finished
from tests.services.proxy import Proxy, in_front_of
from tests.services.servers import free_port

PROCESSES = (("worker",), ("dispatcher",), ("worker", "--webhooks"), ("api",))
USES_BROKER = (("worker",), ("dispatcher",), ("worker", "--webhooks"))
TEXT = "canary-of-a-text"


class Told:
    """What one process says, on its probe port and in its log."""

    def __init__(self, settings: Settings, args: tuple[str, ...], folder: pathlib.Path) -> None:
        self.port = free_port()
        self.args, self.log = args, folder / f"{'-'.join(args).replace('--', '')}.log"
        own = settings.but(metrics_port=self.port, api_port=free_port())
        self.process = Process(own, *args, log=self.log)

    def health(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz") as answer:
                said: dict[str, Any] = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                said = json.loads(error.read())
        except OSError:
            return {"status": "not there", "reasons": []}
        return said

    def is_up(self, dependency: str) -> float | None:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        start = f'guardfleet_dependency_up{{dependency="{dependency}"}} '
        return next((float(line.removeprefix(start)) for line in lines if line.startswith(start)), None)

    def lines(self, slug: str, dependency: str) -> list[dict[str, Any]]:
        known = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in known if line["message"] == slug and line.get("guardfleet.dependency") == dependency]

    def tells(self, dependency: str, status: str) -> bool:
        said = self.health()
        return (
            said["status"] == status
            and any(reason.startswith(f"{dependency}:") for reason in said["reasons"])
            and self.is_up(dependency) == 0.0
        )

    def is_well(self) -> bool:
        return self.health() == {"status": "healthy", "reasons": []}


@pytest.fixture
def behind(database_url: str, redis_broker: str, tmp_path: pathlib.Path) -> Iterator[tuple[Settings, Proxy, Proxy]]:
    """Settings through proxies before PostgreSQL and the broker."""
    with in_front_of(database_url) as (database, to_database), in_front_of(redis_broker) as (broker, to_broker):
        yield fleet_settings(to_database, to_broker, tmp_path), database, broker


def test_each_process_tells_when_a_server_goes_away_and_when_it_is_back(
    behind: tuple[Settings, Proxy, Proxy], tmp_path: pathlib.Path
) -> None:
    settings, database, broker = behind
    told = [Told(settings, args, tmp_path) for args in PROCESSES]
    try:
        until(lambda: all(one.is_well() for one in told), what=f"a fleet that is well: {[one.health() for one in told]}")
        go_and_return(told, [one for one in told if one.args in USES_BROKER], broker, "broker", "degraded")
        go_and_return(told, told, database, "database", "unhealthy")
    finally:
        for one in told:
            one.process.stop()


def go_and_return(told: Sequence[Told], concerned: Sequence[Told], server: Proxy, name: str, status: str) -> None:
    """Take a server away until all whom it concerns say so, and bring it back until all are well."""
    server.go_away()
    until(lambda: all(one.tells(name, status) for one in concerned), what=f"{[one.health() for one in concerned]}")
    server.come_back()
    until(lambda: all(one.is_well() for one in told), what=f"its return: {[one.health() for one in told]}")
    for one in concerned:
        (began,), (ended,) = one.lines("outage_began", name), one.lines("outage_ended", name)
        assert began["server.address"].startswith(f"127.0.0.1:{server.port}")
        assert began["server.address"] == ended["server.address"]
        assert began["log.level"] == "warning"
        assert not one.lines("outage_goes_on", name), "it is said once a minute"


def test_one_grep_follows_a_job_through_all_logs_and_no_text_is_in_any(
    behind: tuple[Settings, Proxy, Proxy], tmp_path: pathlib.Path
) -> None:
    settings, _, _ = behind
    producer = DirectClient.connect(settings)
    told = [Told(settings, args, tmp_path) for args in PROCESSES]
    try:
        job = finished(producer, producer.submit([TEXT, f"{TEXT} [[unsafe]]"]).job)
        worker = told[0]
        until(lambda: job.label in worker.log.read_text(), what="the job in the worker's log")
        found = [json.loads(line) for line in worker.log.read_text().splitlines() if job.label in line]
        assert {line["message"] for line in found} == {"shard_finished"}
        assert {line["guardfleet.job"] for line in found} == {job.label}
        always = {"@timestamp", "log.level", "message", "ecs.version", "service.name", "process.name", "process.pid", "host.name"}
        for one in told:
            text = one.log.read_text()
            assert TEXT not in text
            for line in text.splitlines():
                if line.startswith("{"):
                    assert always <= json.loads(line).keys()
    finally:
        for one in told:
            one.process.stop()
        producer.db.close()
