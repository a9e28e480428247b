"""What is detected about the broker before it does harm: queues with other arguments, settings that lose work, silence."""

import pathlib

import pytest
import redis
from kombu import Connection

from guardfleet.broker import celery_app
from guardfleet.broker.celery_app import DELIVER, Publisher, make_app
from guardfleet.cli.commands import doctor
from guardfleet.errors import RetryableError
from guardfleet.security.encryption import Keyring
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import fleet_settings
from tests.services.fleet import fleet
from tests.services.proxy import in_front_of
from tests.services.servers import OwnRedis
from tests.services.stored import scalar, submit
from worker.dispatch.dispatcher import Dispatcher

PUBLISHED = "select count(published_at) from shard"


def test_a_queue_of_another_shape_is_named_by_doctor_and_by_the_worker(
    database_url: str, rabbitmq: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = fleet_settings(database_url, rabbitmq, tmp_path)
    app = make_app(settings, "test")
    assert doctor.examine(settings) == 0
    (lane, *_) = Publisher(app, settings).queues.lanes
    with Connection(rabbitmq) as connection:
        with pytest.raises(connection.channel_errors), connection.channel() as channel:  # looking at it has not made it
            channel.queue_declare(lane, passive=True)
        with connection.channel() as channel:
            arguments = {**app.amqp.queues[lane].queue_arguments, "x-delivery-limit": 5}
            channel.queue_declare(lane, durable=True, auto_delete=False, arguments=arguments)
    capsys.readouterr()
    assert doctor.examine(settings) == 2
    said = capsys.readouterr().out
    assert f"RabbitMQ has the queue {lane} with other arguments" in said
    assert "x-delivery-limit" in said
    with fleet(settings, tmp_path, ("worker",)) as (worker,):
        assert worker.wait() == 2
        assert f"RabbitMQ has the queue {lane} with other arguments" in worker.log.read_text()


def test_what_rabbitmq_says_of_a_wrong_password_or_virtual_host_is_passed_on(
    database_url: str, rabbitmq: str, tmp_path: pathlib.Path
) -> None:
    for wrong, said in ((f"{rabbitmq}_nowhere", "not found"), (rabbitmq.replace(":guest@", ":wrong@"), "Login was refused")):
        settings = fleet_settings(database_url, wrong, tmp_path)
        with pytest.raises(celery_app.RefusedError, match=said) as found:
            celery_app.declare(make_app(settings, "test"), settings)
        assert ":wrong" not in str(found.value)
        with fleet(settings, tmp_path, ("worker",)) as (worker,):
            assert worker.wait() == 2
            assert "Is broker_url right?" in worker.log.read_text()


def test_doctor_looks_at_how_redis_is_set_up(
    database_url: str, own_redis: OwnRedis, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = fleet_settings(database_url, own_redis.url, tmp_path)
    client = redis.Redis.from_url(own_redis.url)

    def said(status: int = 0) -> str:
        assert doctor.examine(settings) == status
        return next(line for line in capsys.readouterr().out.splitlines() if "broker:" in line)

    assert said().startswith("ok  broker: Redis ")
    client.hset("unacked", "a", "message of an application without a prefix")
    assert said().startswith("but broker: another Celery application uses the same Redis database")
    client.flushdb()
    client.config_set("appendonly", "no")
    assert "is not append-only" in said()
    client.config_set("maxmemory-policy", "allkeys-lru")
    assert said(2).startswith("no  broker: maxmemory-policy is allkeys-lru")
    client.close()


def test_a_broker_that_falls_silent_is_away_and_what_it_did_not_confirm_is_not_marked(
    database_url: str, broker_url: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_app, "ANSWER_S", 2.0)
    with in_front_of(broker_url) as (proxy, through):
        settings = fleet_settings(database_url, through, tmp_path)
        publisher = Publisher(make_app(settings, "test"), settings)
        dispatcher = Dispatcher(db, publisher, keyring, settings)
        assert publisher.publish(DELIVER, publisher.queues.webhooks, [{"delivery": 0}]) == 1  # it is connected
        proxy.freeze()
        submit(db, keyring)
        with pytest.raises(RetryableError, match="did not take a message"):
            dispatcher.tick()
        assert scalar(db, PUBLISHED) == 0
        proxy.cut()
        dispatcher.tick()
        assert scalar(db, PUBLISHED) == scalar(db, "select count(*) from shard")
        publisher.close()
