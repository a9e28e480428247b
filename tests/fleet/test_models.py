"""The model of a fleet is changed while it works: real processes, bulk and interactive work, and rows that say who judged."""

import pathlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from guardfleet.client.direct import DirectClient
from guardfleet.domain.options import JobOptions
from guardfleet.domain.states import DeploymentState
from guardfleet.settings import Settings
from guardfleet.store import verdicts
from guardfleet.store.deployments import comparisons, deployments, seats
from guardfleet.store.deployments.deployments import Asked, Deployment
from guardfleet.store.jobs.views import JobView
from tests.services.commands import said
from tests.services.fixtures import with_broker
from tests.services.fleet import fleet, until
from tests.services.outcome import assert_exactly_once, finished, progressed

DISPATCHER, WORKER = ("dispatcher",), ("worker",)


@pytest.fixture
def producer(settings: Settings) -> Iterator[DirectClient]:
    made = DirectClient.connect(settings.but(shard_texts=50))
    yield made
    made.db.close()


def deployed(producer: DirectClient, revision: str | None, **asked: object) -> Deployment:
    values: dict[str, object] = {"detector": "guard", "model": "demo", "revision": revision, "state": DeploymentState.ROLLING}
    return deployments.begin(producer.db, producer.keyring, Asked(**{**values, **asked}))  # type: ignore[arg-type]


def reached(producer: DirectClient, one: Deployment, state: DeploymentState) -> Deployment:
    """The deployment once it is in this state."""

    def look() -> Deployment | None:
        now = deployments.get(producer.db, one.label, detector=one.detector)
        return now if now.told is state else None

    found = until(look, what=f"{one.label} {state.label}")
    assert found is not None
    return found


def ready(producer: DirectClient, n: int) -> None:
    """Wait until so many workers have written their seats."""
    until(lambda: len(seats.there(producer.db, "guard")) == n, what=f"{n} seats")


def revisions(producer: DirectClient, job: JobView) -> set[str]:
    return {row["revision"] for row in verdicts.export(producer.db, job)}


@contextmanager
def asking(producer: DirectClient) -> Iterator[list[JobView]]:
    """Somebody asks and waits for the answer, again and again; the jobs are complete when the block is left."""
    ended, jobs = threading.Event(), list[JobView]()

    def ask() -> None:
        while not ended.is_set():
            jobs.append(finished(producer, producer.submit([f"now {len(jobs)}"], JobOptions(interactive=True)).job))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield jobs
    finally:
        ended.set()
        thread.join()


def test_a_fleet_changes_to_another_revision_in_the_middle_of_a_job_and_nobody_who_waits_notices(
    producer: DirectClient, settings: Settings, tmp_path: pathlib.Path
) -> None:
    slow = settings.but(instant_ms_per_batch=30.0)
    with fleet(slow, tmp_path, DISPATCHER, WORKER, WORKER):
        ready(producer, 2)
        job = producer.submit([f"text {i}" for i in range(20_000)]).job
        with asking(producer) as asked:
            progressed(producer, job, 500)
            reached(producer, deployed(producer, "2"), DeploymentState.ACTIVE)
            n_before = len(asked)
            until(lambda: len(asked) > n_before + 2, what="answers after the change")
        done = finished(producer, job)
        later = finished(producer, producer.submit(["x"]).job)
    assert_exactly_once(producer, done)
    assert done.error == 0
    assert revisions(producer, done) == {"1", "2"}
    assert sorted(done.models) == ["instant@1", "instant@2"]
    assert {one.error for one in asked} == {0}
    assert revisions(producer, asked[0]) == {"1"}
    assert revisions(producer, asked[-1]) == revisions(producer, later) == {"2"}
    with producer.db.session() as connection:  # a shard is judged by one model, whatever happens meanwhile
        mixed = connection.scalar(
            f"""select count(*) from (select seq / 50 from verdict where job_id = {done.id} group by seq / 50
                having count(distinct model_id) > 1) x"""
        )
    assert mixed == 0


__all__: Sequence[str] = ()
_ = (comparisons, said, with_broker)
