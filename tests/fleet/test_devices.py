"""`guardfleet worker --devices`: a worker for each, started again when one dies, all drained together."""

import os
import pathlib
import signal

import pytest
from pydantic import SecretStr

from guardfleet.cli.commands.devices import devices_of, environment
from guardfleet.client.direct import DirectClient
from guardfleet.errors import ConfigurationError
from guardfleet.process.supervisor import free_shards
from guardfleet.settings import Settings
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards.leases import holder
from tests.services.fixtures import with_broker
from tests.services.fleet import fleet, until
from tests.services.outcome import assert_exactly_once, finished
from tests.services.stored import scalar


def children(pid: int) -> list[int]:
    """Processes whose parent this is."""
    lists = [path.read_text() for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children")]  # by the thread that made them
    return [int(child) for several in lists for child in several.split()]


def held_by(db: Database, pid: int) -> int:
    """How many shards this process has claimed."""
    return int(scalar(db, f"select count(*) from shard where state = 1 and worker = '{holder(pid)}'"))


@with_broker("rabbitmq")
def test_each_device_has_a_worker_and_a_dead_one_is_replaced(settings: Settings, tmp_path: pathlib.Path) -> None:
    producer = DirectClient.connect(settings.but(shard_texts=10))
    patient = settings.but(lease_s=3600.0, instant_ms_per_batch=100.0)  # no lease runs out in this test
    with fleet(patient, tmp_path, ("worker", "--devices", "cpu,cpu"), ("dispatcher",)) as (workers, _):
        first = until(lambda: len(found := children(workers.process.pid)) == 2 and found, what="two workers")
        assert first
        until(lambda: workers.log.read_text().count('"worker_ready"') == 2, what="two that take work")
        job = producer.submit([f"text {i}" for i in range(400)]).job
        until(lambda: held_by(producer.db, first[0]), what="shards that the first has")
        os.kill(first[0], signal.SIGKILL)
        assert_exactly_once(producer, finished(producer, job))
        again = until(
            lambda: len(found := children(workers.process.pid)) == 2 and first[0] not in found and found, what="another worker"
        )
        assert again
        workers.signal(signal.SIGTERM)
        assert workers.wait() == 0
        assert not [pid for pid in again if pathlib.Path(f"/proc/{pid}").exists()]
    producer.db.close()


@pytest.mark.parametrize("database", [None, SecretStr("postgresql://nobody@127.0.0.1:1/x")])
def test_a_supervisor_outlives_a_database_that_is_away(database: SecretStr | None) -> None:
    free_shards(Settings().but(database_url=database))(1)


@with_broker("rabbitmq")
def test_a_device_that_cannot_be_had_ends_all_of_them_with_its_reason(settings: Settings, tmp_path: pathlib.Path) -> None:
    wrong = settings.but(engine="model")
    with fleet(wrong, tmp_path, ("worker", "--devices", "7")) as (workers,):
        assert workers.wait() == 2
        assert "torch sees no GPU" in workers.log.read_text()


def test_names_and_numbers_are_devices_and_ports_do_not_clash() -> None:
    assert devices_of("0, 1") == ["cuda:0", "cuda:1"]
    assert devices_of("cuda:3,cpu") == ["cuda:3", "cpu"]
    with pytest.raises(ConfigurationError, match="separated by commas"):
        devices_of("0,,1")
    settings = Settings(metrics_port=9000)
    ports = [environment(settings, "cpu", place)["GUARDFLEET_METRICS_PORT"] for place in range(2)]
    assert ports == ["9000", "9001"]
    assert "GUARDFLEET_METRICS_PORT" not in environment(Settings(metrics_port=0), "cpu", 1)
