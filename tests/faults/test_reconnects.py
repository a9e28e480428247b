"""The broker cuts every connection during work; the worker really resumes, and still obeys SIGTERM."""

import pathlib
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable

import pytest
import redis
from kombu import Connection

from guardfleet.broker import celery_app
from guardfleet.broker.celery_app import MODERATE, Publisher, make_app
from guardfleet.client.direct import DirectClient
from guardfleet.settings import Settings
from guardfleet.store.jobs import views
from tests.services.fixtures import fleet_settings
from tests.services.fleet import Process, fleet, until
from tests.services.outcome import assert_exactly_once, finished, progressed
from tests.services.servers import OwnRedis, free_port

ROUNDS = 5  # at 6 deadlocks in 8 reconnects, five rounds let the defect slip about once in a thousand runs


def cut_rabbitmq(vhost: str) -> None:
    subprocess.run(["rabbitmqctl", "-q", "close_all_connections", "--vhost", vhost, "a test"], check=True, capture_output=True)


def cut_redis(url: str) -> None:
    client = redis.Redis.from_url(url)
    client.client_kill_filter(_type="normal", skipme=True)
    client.close()


@pytest.mark.parametrize("module", ["guardfleet", "tests.services.classic"])
def test_a_worker_resumes_after_rabbitmq_cuts_its_connections(
    module: str, rabbitmq: str, database_url: str, tmp_path: pathlib.Path
) -> None:
    settings = fleet_settings(database_url, rabbitmq, tmp_path, instant_ms_per_batch=60.0)
    survive(settings, module, tmp_path, lambda: cut_rabbitmq(rabbitmq.rsplit("/", 1)[1]))


def test_a_worker_resumes_after_redis_cuts_its_connections(database_url: str, own_redis: OwnRedis, tmp_path: pathlib.Path) -> None:
    settings = fleet_settings(database_url, own_redis.url, tmp_path, instant_ms_per_batch=60.0)
    survive(settings, "guardfleet", tmp_path, lambda: cut_redis(own_redis.url))


def test_liveness_goes_on_after_a_reconnect(rabbitmq: str, database_url: str, tmp_path: pathlib.Path) -> None:
    port = free_port()
    settings = fleet_settings(database_url, rabbitmq, tmp_path, metrics_port=port)
    worker = Process(settings, "worker", log=tmp_path / "worker.log")
    try:
        worker.until_says("worker_ready")
        cut_rabbitmq(rabbitmq.rsplit("/", 1)[1])
        cut_at = time.time()
        # Two seconds of ticks from after the reconnect: a timer that the reconnect cleared would stand still.
        until(lambda: ticked_at(port) > cut_at + 2, what="a tick after the reconnect")
        for path in ("livez", "readyz"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
                assert answer.read() == b"ok\n"
    finally:
        worker.stop()


def ticked_at(port: int) -> float:
    """When the worker's event loop last turned, as it says."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("guardfleet_worker_loop_timestamp_seconds "))


def survive(settings: Settings, module: str, folder: pathlib.Path, cut: Callable[[], None]) -> None:
    """Run a job through `ROUNDS` cuts, then end the worker by SIGTERM."""
    producer = DirectClient.connect(settings.but(shard_texts=10))
    job = producer.submit([f"text {i}" for i in range(1200)]).job
    dispatcher = Process(settings, "dispatcher", log=folder / "dispatcher.log", module=module)
    worker = Process(settings, "worker", log=folder / "worker.log", module=module)
    try:
        for round_ in range(ROUNDS):
            until(lambda n=60 * (round_ + 1): views.get(producer.db, job.public_id).done >= n, what="progress after the cut")
            cut()
        assert_exactly_once(producer, finished(producer, job))
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0  # a worker in the reconnect's deadlock never ends
    finally:
        worker.stop()
        dispatcher.stop()
        producer.db.close()


def test_a_flushed_redis_loses_nothing(database_url: str, own_redis: OwnRedis, tmp_path: pathlib.Path) -> None:
    settings = fleet_settings(database_url, own_redis.url, tmp_path, instant_ms_per_batch=20.0)
    producer = DirectClient.connect(settings.but(shard_texts=10))
    job = producer.submit([f"text {i}" for i in range(600)]).job
    client = redis.Redis.from_url(own_redis.url)
    try:
        with fleet(settings, tmp_path, ("dispatcher",), ("worker",)):
            for n in (50, 150, 300):
                progressed(producer, job, n)
                client.flushdb()  # queues, messages in flight and bindings are gone
            assert_exactly_once(producer, finished(producer, job))
    finally:
        client.close()
        producer.db.close()


def test_a_message_that_is_none_is_dead_lettered_and_the_worker_goes_on(
    rabbitmq: str, database_url: str, tmp_path: pathlib.Path
) -> None:
    settings = fleet_settings(database_url, rabbitmq, tmp_path)
    producer = DirectClient.connect(settings)
    publisher = Publisher(make_app(settings, "test"), settings)
    try:
        with fleet(settings, tmp_path, ("dispatcher",), ("worker",)) as (_, worker):
            worker.until_says("worker_ready")
            for bad in ({"v": 0, "job": 1, "shard": 0}, {"job": "x", "shard": 0}, {}):
                publisher.publish(MODERATE, publisher.queues.lanes[0], [bad])
            until(lambda: publisher.depth(publisher.queues.dead) == 3, what="three dead letters")
            assert_exactly_once(producer, finished(producer, producer.submit(["fine"]).job))
    finally:
        publisher.close()
        producer.db.close()


def test_a_redis_that_takes_no_writes_for_a_while_is_waited_for(
    database_url: str, own_redis: OwnRedis, tmp_path: pathlib.Path
) -> None:
    settings = fleet_settings(database_url, own_redis.url, tmp_path, instant_ms_per_batch=20.0)
    producer = DirectClient.connect(settings.but(shard_texts=10))
    client = redis.Redis.from_url(own_redis.url)
    try:
        with fleet(settings, tmp_path, ("dispatcher",), ("worker",)) as (dispatcher, worker):
            job = producer.submit([f"text {i}" for i in range(600)]).job
            progressed(producer, job, 100)
            client.replicaof("127.0.0.1", "1")  # as after a failover: whoever is still connected is told READONLY
            until(lambda: dispatcher.says("dispatcher_paused"), what="a dispatcher that cannot ring")
            until(lambda: worker.says("express_reconnecting"), what="a worker that cannot fetch")
            client.replicaof("NO", "ONE")
            assert_exactly_once(producer, finished(producer, job))
            assert worker.process.poll() is None
    finally:
        client.close()
        producer.db.close()


def test_a_doorbell_handed_back_by_more_restarts_than_rabbitmq_allows_is_rung_again(
    rabbitmq: str, database_url: str, tmp_path: pathlib.Path
) -> None:
    settings = fleet_settings(database_url, rabbitmq, tmp_path)
    producer = DirectClient.connect(settings)
    publisher = Publisher(make_app(settings, "test"), settings)
    lane, dead = publisher.queues.lanes[0], publisher.queues.dead
    celery_app.declare(make_app(settings, "test"), settings)
    try:
        with fleet(settings, tmp_path, ("dispatcher",)), Connection(rabbitmq) as connection, connection.channel() as channel:
            job = producer.submit(["fine"]).job
            for _ in range(celery_app.DELIVERY_LIMIT + 1):
                message = until(lambda: channel.basic_get(lane), what="the message")
                channel.basic_reject(message.delivery_tag, requeue=True)
            until(lambda: publisher.depth(dead) == 1, what="the dead letter")
            with fleet(settings, tmp_path, ("worker",)):
                assert_exactly_once(producer, finished(producer, job))
    finally:
        publisher.close()
        producer.db.close()
