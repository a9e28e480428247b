"""The fleet's own rows, and what the leading dispatcher counts of all work."""

import pytest

from guardfleet.domain.scaling import TOKENS_PER_BYTE
from guardfleet.domain.states import WorkerState
from guardfleet.domain.verdict import Model
from guardfleet.security.encryption import Keyring
from guardfleet.store import fleet, models
from guardfleet.store.fleet import Sighting
from guardfleet.store.jobs import control
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import backlog, leases
from guardfleet.telemetry import metrics
from tests.services.poison import change
from tests.services.stored import new_job, scalar, submit, took
from worker.dispatch.figures import Figures

A = Sighting("a", WorkerState.READY, "m", "r", 1000.0, 0.5)
B = Sighting("b", WorkerState.READY, "m", "r", 3000.0, 0.5)


def values(metric: metrics.Known) -> dict[tuple[str, ...], float]:
    return {tuple(sample.labels.values()): sample.value for family in metric.collect() for sample in family.samples}


def test_a_worker_is_heard_of_until_it_stops_or_falls_silent(db: Database) -> None:
    fleet.report(db, Sighting("a", WorkerState.LOADING))
    assert fleet.heard_of(db) == [Sighting("a", WorkerState.LOADING)]
    fleet.report(db, A)
    fleet.report(db, B)
    assert set(fleet.heard_of(db)) == {A, B}
    change(db, "update worker set seen_at = now() - interval '1 minute' where name = 'b'")
    assert fleet.heard_of(db) == [A]
    fleet.report(db, Sighting("a", WorkerState.STOPPED, "m", "r", 1000.0, 0.5))
    assert fleet.heard_of(db) == []


def test_a_rate_outlives_the_workers_that_measured_it_for_days(db: Database) -> None:
    fleet.report(db, A)
    fleet.report(db, B)
    change(db, "update worker set seen_at = now() - interval '3 days'")
    assert fleet.rates(db) == {"m": (2000.0, 0.5)}
    fleet.forget_old(db)
    assert fleet.rates(db) == {"m": (2000.0, 0.5)}
    change(db, "update worker set seen_at = now() - interval '8 days'")
    fleet.forget_old(db)
    assert fleet.rates(db) == {}


def test_a_number_that_nobody_renews_is_missing_and_not_zero(db: Database) -> None:
    wanted = "select wanted from guardfleet_workers_wanted where route = 'any'"
    fleet.write_wanted(db, {"any": 3, "m": 1})
    assert scalar(db, wanted) == 3
    fleet.write_wanted(db, {"any": 0})
    assert scalar(db, wanted) == 0
    assert scalar(db, "select count(*) from guardfleet_workers_wanted") == 1
    change(db, "update scaling set at = now() - interval '3 minutes'")
    assert scalar(db, wanted) is None


def test_the_backlog_is_what_waits_and_what_is_in_work_without_paused_jobs(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 10, shard_texts=4)
    paused = submit(db, keyring, 10, shard_texts=4)
    control.pause(db, paused.id)
    held = took(db, job, 0)
    (left,) = backlog.open_work(db)
    assert (left.texts, left.ready, left.leased, left.retrying) == (10, 2, 1, 0)
    assert left.text_bytes == scalar(db, f"select sum(text_bytes) from shard where job_id = {job.id}") > 0
    assert backlog.busy_workers(db) == {None: 1}
    leases.fail(db, held, error="x", delay_s=60)
    (left,) = backlog.open_work(db)
    assert (left.ready, left.leased, left.retrying) == (3, 0, 1)


@pytest.fixture
def figures(db: Database) -> Figures:
    return Figures(db, horizon_s=100.0)


def test_the_figures_say_what_waits_who_is_there_and_who_is_wanted(db: Database, keyring: Keyring, figures: Figures) -> None:
    job = submit(db, keyring, 10, shard_texts=4)
    figures.count()
    assert values(metrics.BACKLOG_TEXTS) == {("bulk", "any"): 10.0}
    text_bytes = scalar(db, f"select sum(text_bytes) from shard where job_id = {job.id}")
    assert values(metrics.BACKLOG_TOKENS) == {("bulk", "any"): float(round(text_bytes * TOKENS_PER_BYTE))}
    assert values(metrics.WANTED) == {("any",): 1.0}, "nobody has measured a rate: one measures"
    assert (figures.unserved, values(metrics.UNSERVED)) == (("any",), {(): 1.0})
    tokens = text_bytes * TOKENS_PER_BYTE
    fleet.report(db, Sighting("a", WorkerState.READY, "m", "r", tokens / 300, TOKENS_PER_BYTE))  # alone it would take 300 s
    change(db, "update job set expires_at = now() + interval '100 s'")
    figures.count()
    assert values(metrics.WORKERS) == {("m", "ready"): 1.0}
    assert values(metrics.WANTED)[("any",)] >= 3
    assert scalar(db, "select wanted from guardfleet_workers_wanted where route = 'any'") == values(metrics.WANTED)[("any",)]
    assert (figures.unserved, values(metrics.LATE_JOBS)) == ((), {("bulk",): 1.0})
    assert 150 < values(metrics.WORST_LATE)[("bulk",)] < 250
    figures.forget()
    assert values(metrics.WANTED) == values(metrics.BACKLOG_TEXTS) == values(metrics.UNSERVED) == {}


def test_that_the_last_worker_is_gone_is_said_between_two_counts_of_the_work(
    db: Database, keyring: Keyring, figures: Figures
) -> None:
    submit(db, keyring, 4)
    fleet.report(db, A)
    figures.count()
    assert figures.unserved == ()
    change(db, f"update worker set seen_at = now() - interval '{fleet.SEEN_S} s'")
    figures.workers()
    assert (figures.unserved, values(metrics.UNSERVED), values(metrics.WORKERS)) == (("any",), {(): 1.0}, {})
    figures.forget()
    assert (figures.unserved, values(metrics.UNSERVED)) == ((), {})


def test_work_that_names_a_model_has_a_route_of_its_own(db: Database, keyring: Keyring, figures: Figures) -> None:
    fleet.report(db, A)
    models.register(db, Model("other", "r", "p"))
    submit(db, keyring, 4, new=new_job(model="other"))
    figures.count()
    assert values(metrics.WANTED) == {("any",): 1.0, ("other",): 1.0}, "all work has a route, whatever it names"
    assert figures.unserved == ("other",)


def test_a_worker_that_holds_work_of_a_named_model_is_wanted_by_all_routes(
    db: Database, keyring: Keyring, figures: Figures
) -> None:
    models.register(db, Model("m", "r", "p"))
    job = submit(db, keyring, 8, shard_texts=4, new=new_job(model="m"))
    for worker in ("a", "b"):
        assert leases.claim(db, job.id, 0 if worker == "a" else 1, worker=worker, lease_s=60)
    figures.count()
    assert values(metrics.WANTED) == {("any",): 2.0, ("m",): 2.0}
    assert backlog.busy_workers(db) == {None: 2, "m": 2}


def test_a_job_that_nobody_will_begin_in_time_is_late(db: Database, keyring: Keyring, figures: Figures) -> None:
    submit(db, keyring, 4)
    change(db, "update job set expires_at = now() + interval '60 s'")
    figures.count()
    assert values(metrics.LATE_JOBS) == {("bulk",): 1.0}
    change(db, "update job set expires_at = now() + interval '1 day'")
    figures.count()
    assert values(metrics.LATE_JOBS) == {("bulk",): 0.0}


def test_each_workers_state_is_told_and_those_that_are_there_come_first(db: Database, keyring: Keyring) -> None:
    for name, state in (("a", WorkerState.STOPPED), ("b", WorkerState.READY), ("c", WorkerState.LOADING), ("d", WorkerState.READY)):
        fleet.report(db, Sighting(name, state, "m", "r", 1.0, 1.0, "cuda:0", 1, 2))
    change(db, "update worker set seen_at = now() - interval '1 minute' where name = 'b'")
    change(db, "update worker set seen_at = now() - interval '2 days' where name = 'd'")
    known = fleet.known(db, within_s=86_400)
    assert [(one.name, one.told, one.is_there) for one in known] == [
        ("c", "loading", True), ("a", "stopped", False), ("b", "lost", False),
    ]  # fmt: skip
    assert (known[0].device, known[0].used_bytes, known[0].total_bytes) == ("cuda:0", 1, 2)
    submit(db, keyring, 10, shard_texts=4)
    (queue,) = backlog.queues(db)
    assert (queue.lane_label, queue.model, queue.ready, queue.leased, queue.waiting, queue.texts) == ("bulk", None, 3, 0, 0, 10)
    assert backlog.queues(db, tenant_id=2) == []
