"""What a broker does when a shard outlasts its timeouts: it redelivers the message, and the claim keeps the copy out.

Each server's timeout is cut to a second or two, and a shard takes five.
"""

import pathlib
import subprocess
from collections.abc import Callable

import pytest

from guardfleet.client.direct import DirectClient
from guardfleet.settings import Settings
from guardfleet.store.postgres.database import Database
from tests.services import impatient
from tests.services.fixtures import fleet_settings
from tests.services.fleet import Process, until
from tests.services.outcome import assert_exactly_once, finished
from tests.services.servers import OwnRabbit
from tests.services.stored import scalar

TEXTS = [f"{'word ' * 20_000}{i}" for i in range(8)]  # windows for about 35 batches of 0.15 s
CLAIMS = "select array_agg(token order by shard_no) from shard"


def slow(database_url: str, broker_url: str, folder: pathlib.Path) -> Settings:
    return fleet_settings(database_url, broker_url, folder, instant_ms_per_batch=150.0, lease_s=30.0, log_level="debug")


def test_redis_hands_a_slow_shard_out_again_and_nobody_works_on_the_copy(
    database_url: str, redis_broker: str, db: Database, tmp_path: pathlib.Path
) -> None:
    worker = run(slow(database_url, redis_broker, tmp_path), "tests.services.impatient", tmp_path)
    assert worker.says("shard_skipped")
    assert scalar(db, CLAIMS) == [1, 1]


@pytest.mark.parametrize("own_rabbitmq", ["-rabbit consumer_timeout 1500 -rabbit channel_tick_interval 500"], indirect=True)
def test_rabbitmq_takes_a_slow_shard_back_and_the_worker_lives_on(
    database_url: str, own_rabbitmq: OwnRabbit, db: Database, tmp_path: pathlib.Path
) -> None:
    worker = run(slow(database_url, own_rabbitmq.url, tmp_path), "guardfleet", tmp_path)
    assert worker.says("shard_skipped")
    assert scalar(db, CLAIMS) == [1, 1]
    assert "timed out" in "".join(log.read_text() for log in (tmp_path / "rabbit" / "log").glob("*.log"))


def test_heartbeats_go_on_beside_a_slow_shard_and_a_busy_interpreter(
    database_url: str, rabbitmq: str, db: Database, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(impatient.BUSY, "1")

    def agreed() -> bool:
        """Whether each of the worker's connections has agreed on the heartbeat, as RabbitMQ sees it."""
        command = ["rabbitmqctl", "-q", "list_connections", "--vhost", rabbitmq.rsplit("/", 1)[1], "timeout"]
        return str(impatient.HEARTBEAT_S) in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

    worker = run(slow(database_url, rabbitmq, tmp_path), "tests.services.impatient", tmp_path, agreed)
    assert not worker.says("shard_skipped")
    assert scalar(db, CLAIMS) == [1, 1]


def run(settings: Settings, module: str, folder: pathlib.Path, meanwhile: Callable[[], bool] = lambda: True) -> Process:
    """One shard that is slow, and behind it one that is not; the worker, which has to be there still at the end."""
    producer = DirectClient.connect(settings)
    dispatcher = Process(settings, "dispatcher", log=folder / "dispatcher.log")
    worker = Process(settings, "worker", log=folder / "worker.log", module=module)
    try:
        job = producer.submit(TEXTS).job
        until(meanwhile, what="what is to be seen while the shard is worked on")
        assert_exactly_once(producer, finished(producer, job))
        assert_exactly_once(producer, finished(producer, producer.submit(["quick"]).job))
        assert worker.process.poll() is None
    finally:
        worker.stop()
        dispatcher.stop()
        producer.db.close()
    return worker
