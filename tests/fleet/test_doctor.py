"""What doctor finds about servers: old ones, silent ones, clocks that differ; and that it ends in time and without secrets."""

import json
import pathlib
import socket
from collections.abc import Iterator

import pytest

from guardfleet.cli.doctor import broker, database
from guardfleet.cli.doctor.examination import Examination, looked
from guardfleet.cli.doctor.findings import Check, Finding, Pitfall, Status
from guardfleet.settings import Settings
from tests.services.commands import command, said
from tests.services.fixtures import fleet_settings
from tests.services.patience import patience
from tests.services.proxy import in_front_of
from tests.services.servers import OwnRedis

ELSEWHERE = "amqp://127.0.0.1:1"


def first_of(chain: list[Check] | Iterator[Check]) -> Finding:
    return looked(next(iter(chain)))


@pytest.fixture
def silent() -> Iterator[str]:
    """The host and port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_servers_that_never_answer_cost_no_more_than_the_time_that_was_given(
    silent: str, tmp_path: pathlib.Path, scheme: str
) -> None:
    settings = fleet_settings(
        f"postgresql://u:db-canary@{silent}/x", f"{scheme}://u:broker-canary@{silent}/0", tmp_path, api_port=0
    )
    done = command(settings, "doctor", "--json", "--within", "0.5")
    assert done.returncode == 2, done.stderr
    told = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    for name in ("database", "secret key", "broker"):
        assert (told[name]["status"], told[name]["said"]) == ("failed", "no answer within 0.5 s"), told[name]
    assert told["database"]["pitfall"] == told["broker"]["pitfall"] == "port or firewall"
    assert told["disk"]["status"] == "ok"
    assert not {"clock", "queues", "broker's clock"} & told.keys()
    assert "canary" not in done.stdout + done.stderr


def test_servers_that_are_not_there_are_said_without_their_passwords(tmp_path: pathlib.Path) -> None:
    settings = fleet_settings(
        "postgresql://u:db-canary@127.0.0.1:1/x", "amqp://u:broker-canary@127.0.0.1:1//", tmp_path, api_port=0
    )
    for args in ((), ("--json",)):
        done = said(settings, "doctor", "--within", str(patience(12.0)), *args)
        assert done.returncode == 2, done.stderr
        assert "PostgreSQL cannot be reached" in done.stdout
        assert "the broker at 127.0.0.1:1 does not answer" in done.stdout
        assert "was not compared: the database cannot be used" in done.stdout
        assert "canary" not in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr


def test_a_postgresql_that_is_too_old_is_named(database_url: str, tmp_path: pathlib.Path) -> None:
    told = {b"server_version\x00" + str(now).encode(): b"server_version\x0013" for now in range(15, 20)}
    with in_front_of(database_url, told) as (_, url):
        settings = fleet_settings(f"{url}?sslmode=disable&gssencmode=disable", ELSEWHERE, tmp_path)
        found = first_of(next(database.checks(settings)))
    assert (found.status, found.pitfall) == (Status.FAILED, Pitfall.PORT)
    assert "is too old; guardfleet needs 15 or newer" in found.said


def test_a_rabbitmq_that_is_too_old_is_named(rabbitmq: str, tmp_path: pathlib.Path) -> None:
    settings = fleet_settings("postgresql://127.0.0.1:1/x", rabbitmq, tmp_path)
    well = first_of(broker.checks(settings))
    assert well.status is Status.OK
    version = well.said.split()[1].encode()
    with in_front_of(rabbitmq, {version: b"3.8.9" + b"0" * (len(version) - 5)}) as (_, url):
        found = first_of(broker.checks(fleet_settings("postgresql://127.0.0.1:1/x", url, tmp_path)))
    assert found.status is Status.FAILED
    assert "RabbitMQ 3.8.9" in found.said
    assert "is too old; at least 3.10 is needed" in found.said


def test_a_redis_that_is_too_old_is_named(own_redis: OwnRedis, tmp_path: pathlib.Path) -> None:
    with in_front_of(own_redis.url, {b"redis_version:7": b"redis_version:5", b"redis_version:8": b"redis_version:5"}) as (_, url):
        found = first_of(broker.checks(fleet_settings("postgresql://127.0.0.1:1/x", url, tmp_path)))
    assert found.status is Status.FAILED
    assert "is too old; at least 6.2 is needed" in found.said


def findings(settings: Settings, ahead_s: float, clock_s: float) -> dict[str, Finding]:
    def clock() -> float:
        return clock_s + ahead_s

    chains = [*database.checks(settings, clock=clock), list(broker.checks(settings, clock=clock))]
    return {one.name: one for one in Examination(chains).findings(within_s=patience(60.0))}


def test_a_clock_unlike_the_database_s_and_the_broker_s_is_said(
    database_url: str, own_redis: OwnRedis, tmp_path: pathlib.Path
) -> None:
    import time

    settings = fleet_settings(database_url, own_redis.url, tmp_path)
    for ahead_s, status, word in ((0.0, Status.OK, ""), (-40.0, Status.WARNING, "behind"), (3600.0, Status.FAILED, "ahead of")):
        found = findings(settings, ahead_s, time.time())
        for name in ("clock", "broker's clock"):
            assert found[name].status is status, found[name]
            assert word in found[name].said
    assert "receivers of webhooks would refuse their signatures" in found["clock"].said
