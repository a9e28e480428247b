"""Processes and servers die in the middle of work; the rows show that nothing was lost and nothing done twice."""

import pathlib
import signal
from collections.abc import Callable, Iterator

import pytest

from guardfleet.client.direct import DirectClient
from guardfleet.domain.states import JobState, ShardState
from guardfleet.settings import Settings
from guardfleet.store import verdicts
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import leases
from tests.services.fixtures import fleet_settings, with_broker
from tests.services.fleet import Process, fleet, until
from tests.services.outcome import assert_exactly_once, finished, progressed
from tests.services.patience import patience
from tests.services.servers import OwnPostgres, own_broker

WORKER, DISPATCHER, WEBHOOKS = ("worker",), ("dispatcher",), ("worker", "--webhooks")
TEXTS = [f"text number {i}" for i in range(1500)]


MakeProducer = Callable[..., DirectClient]


@pytest.fixture
def producer_of() -> Iterator[MakeProducer]:
    """Producers with small shards, closed with the test."""
    made: list[DirectClient] = []

    def make(settings: Settings, shard_texts: int = 25) -> DirectClient:
        made.append(DirectClient.connect(settings.but(shard_texts=shard_texts)))
        return made[-1]

    yield make
    for producer in made:
        producer.db.close()


def leased(db: Database, job_id: int) -> int:
    return leases.states(db, job_id).get(ShardState.LEASED, 0)


def test_a_worker_killed_in_the_middle_of_a_shard_loses_and_doubles_nothing(
    settings: Settings, tmp_path: pathlib.Path, producer_of: MakeProducer
) -> None:
    slow = settings.but(instant_ms_per_batch=100.0)
    producer = producer_of(slow)
    job = producer.submit(TEXTS).job
    with fleet(slow, tmp_path, DISPATCHER, WORKER) as (_, victim):
        progressed(producer, job, 50)
        until(lambda: leased(producer.db, job.id), what="a shard in work")
        victim.signal(signal.SIGKILL)
        assert victim.wait() == -signal.SIGKILL
        with fleet(settings, tmp_path / "..", WORKER):
            done = finished(producer, job, timeout_s=patience(90))
    assert done.state is JobState.COMPLETED
    assert_exactly_once(producer, done)
    assert done.safe == len(TEXTS)


@with_broker("rabbitmq")
def test_a_stopped_worker_that_comes_back_after_its_lease_is_fenced(
    settings: Settings, tmp_path: pathlib.Path, producer_of: MakeProducer
) -> None:
    slow = settings.but(instant_ms_per_batch=300.0, lease_s=1.0)
    producer = producer_of(slow)
    job = producer.submit(TEXTS[:100]).job
    with fleet(slow, tmp_path, DISPATCHER, WORKER) as (_, zombie):
        until(lambda: leased(producer.db, job.id) == 4, what="all four shards in work, and no transaction open")
        zombie.signal(signal.SIGSTOP)
        (tmp_path / "second").mkdir()
        with fleet(slow.but(instant_ms_per_batch=0.0), tmp_path / "second", WORKER):
            done = finished(producer, job)
            zombie.signal(signal.SIGCONT)
            zombie.until_says("shard_fenced")
    assert_exactly_once(producer, views.get(producer.db, done.public_id))


@pytest.mark.parametrize("kind", ["rabbitmq", "redis"])
def test_a_broker_killed_and_started_empty_in_the_middle_of_a_job_loses_nothing(
    kind: str, database_url: str, tmp_path: pathlib.Path, producer_of: MakeProducer
) -> None:
    broker = own_broker(kind, tmp_path)
    settings = fleet_settings(database_url, broker.url, tmp_path, instant_ms_per_batch=50.0)
    producer = producer_of(settings)
    try:
        broker.start()
        with fleet(settings, tmp_path, DISPATCHER, WORKER):
            job = producer.submit(TEXTS).job
            progressed(producer, job, 100)
            broker.kill(empty=True)
            broker.start()
            done = finished(producer, job, timeout_s=patience(120))
    finally:
        broker.stop()
    assert done.state is JobState.COMPLETED
    assert_exactly_once(producer, done)


def test_a_database_that_loses_power_is_waited_for(redis_broker: str, tmp_path: pathlib.Path, producer_of: MakeProducer) -> None:
    from guardfleet.store import migrate

    server = OwnPostgres(tmp_path)
    settings = fleet_settings(server.url, redis_broker, tmp_path, instant_ms_per_batch=50.0)
    try:
        server.start()
        db = Database(server.url, pool_size=1)
        migrate.upgrade(db)
        db.close()
        producer = producer_of(settings)
        with fleet(settings, tmp_path, DISPATCHER, WORKER):
            job = producer.submit(TEXTS).job
            progressed(producer, job, 100)
            server.crash()
            server.start()
            done = finished(producer, job, timeout_s=patience(120))
            assert_exactly_once(producer, done)
    finally:
        server.stop()


def test_sigterm_hands_work_back_at_once_and_counts_no_claim(
    settings: Settings, tmp_path: pathlib.Path, producer_of: MakeProducer
) -> None:
    slow = settings.but(instant_ms_per_batch=700.0, lease_s=30.0)
    producer = producer_of(slow, shard_texts=100)
    texts = [f"{'word ' * 20_000}{i}" for i in range(60)]  # one row a batch, so that a shard is a minute of work
    job = producer.submit(texts).job
    with fleet(slow, tmp_path, DISPATCHER, WORKER) as (_, worker):
        until(lambda: leased(producer.db, job.id), what="a shard in work")
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert worker.says("shard_released")
        with producer.db.begin() as connection:
            held, claims = connection.execute("select count(*) filter (where state = 1), sum(claims) from shard").fetchone()
        assert (held, claims) == (0, 0)
        (tmp_path / "second").mkdir()
        with fleet(settings, tmp_path / "second", WORKER):
            done = finished(producer, job)
    assert_exactly_once(producer, done)


@with_broker("redis")
def test_a_hung_device_ends_the_process_with_its_own_status(
    settings: Settings, tmp_path: pathlib.Path, producer_of: MakeProducer
) -> None:
    producer = producer_of(settings)
    job = producer.submit(["[[hang]]"]).job
    with fleet(settings.but(engine_stall_s=1.0), tmp_path, DISPATCHER, WORKER) as (_, worker):
        assert worker.wait() == 70
        assert worker.says("engine_stalled")
    assert views.get(producer.db, job.public_id).done == 0


@with_broker("rabbitmq")
def test_a_lost_device_ends_the_process_and_its_shard_is_taken_back(
    settings: Settings, tmp_path: pathlib.Path, producer_of: MakeProducer
) -> None:
    producer = producer_of(settings)
    job = producer.submit(["[[lost]]"]).job
    with fleet(settings, tmp_path, DISPATCHER, WORKER) as (dispatcher, worker):
        assert worker.wait() == 70
        assert worker.says("engine_died")
        until(lambda: dispatcher.says("shard_rescued") or leased(producer.db, job.id) == 0, what="the rescue")


@pytest.mark.parametrize(("deed", "broker_url"), [("[[die]]", "redis"), ("[[lost]]", "rabbitmq")], indirect=["broker_url"])
def test_a_text_that_kills_its_process_ends_as_an_error_row(
    deed: str, settings: Settings, tmp_path: pathlib.Path, producer_of: MakeProducer
) -> None:
    deadly = settings.but(max_claims=3, lease_s=1.0)
    producer = producer_of(deadly, shard_texts=4)
    job = producer.submit(["before", deed, "behind", "last of the shard", "of another shard"]).job
    with fleet(deadly, tmp_path, DISPATCHER):
        for attempt in range(6):  # three deaths with four texts, one each with two and alone
            (tmp_path / str(attempt)).mkdir()
            with fleet(deadly, tmp_path / str(attempt), WORKER) as (worker,):
                until(
                    lambda worker=worker: worker.process.poll() is not None or views.get(producer.db, job.public_id).state.is_final,
                    what="a death or the end of the job",
                )
            if views.get(producer.db, job.public_id).state.is_final:
                break
        done = finished(producer, job)
    rows = list(verdicts.export(producer.db, done))
    assert [row["error"] for row in rows] == [None, "abandoned", None, None, None]
    assert rows[1]["rationale"] == "No verdict: its shard failed too often (3 crashes, 0 failures)."
    assert_exactly_once(producer, done)


@with_broker("redis")
def test_a_second_dispatcher_stands_by_and_takes_over(
    settings: Settings, tmp_path: pathlib.Path, producer_of: MakeProducer
) -> None:
    producer = producer_of(settings)
    with fleet(settings, tmp_path, DISPATCHER) as (first,):
        first.until_says("dispatcher_leading")
        second = Process(settings, "dispatcher", log=tmp_path / "second.log")
        try:
            second.until_says("dispatcher_standing_by")
            first.signal(signal.SIGKILL)
            first.wait()
            second.until_says("dispatcher_leading")
            with fleet(settings, tmp_path, WORKER):
                assert_exactly_once(producer, finished(producer, producer.submit(TEXTS[:100]).job))
        finally:
            second.stop()


@with_broker("rabbitmq")
def test_a_shard_whose_texts_are_gone_ends_as_error_rows_after_its_retries(
    settings: Settings, tmp_path: pathlib.Path, producer_of: MakeProducer
) -> None:
    stubborn = settings.but(max_failures=2)
    producer = producer_of(stubborn, shard_texts=2)
    job = producer.submit(["a", "b", "c"]).job
    with producer.db.begin() as connection:
        connection.execute("delete from shard_payload where shard_no = 0")
    with fleet(stubborn, tmp_path, DISPATCHER, WORKER):
        done = finished(producer, job)
    rows = list(verdicts.export(producer.db, done))
    assert [(row["id"], row["error"]) for row in rows] == [(None, "abandoned"), (None, "abandoned"), ("line:3", None)]
    assert rows[0]["error_detail"] == "0 crashes, 2 failures"
    assert_exactly_once(producer, done)
