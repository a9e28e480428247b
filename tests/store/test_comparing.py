"""Two models of one worker are compared by what each said itself of texts whose shard was stored, wherever the shard goes next."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from guardfleet.domain.states import DeploymentState
from guardfleet.domain.verdict import GUARD
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import models
from guardfleet.store.deployments import comparisons, deployments
from guardfleet.store.deployments.comparisons import Cell
from guardfleet.store.deployments.row import Asked, Deployment
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import leases
from guardfleet.store.shards.leases import Waits
from tests.services.fleet import until
from tests.services.moderating import moderator
from tests.services.poison import change
from tests.services.stored import new_job, scalar, submit
from worker.engine.engine import BatchingEngine
from worker.engine.testing.marked import InstantBackend
from worker.moderation.comparing import Comparer
from worker.moderation.judge import Judge
from worker.moderation.seats import Beside, Seat, Seats
from worker.moderation.tasks import Moderator

__all__ = ["moderator"]


class Shadowed:
    """A worker of a detector whose second revision is a shadow of all texts."""

    def __init__(self, db: Database, keyring: Keyring, moderator: Moderator, detector: str) -> None:
        asked = Asked(detector=detector, model="demo", revision="2", state=DeploymentState.SHADOW, share=1.0)
        self._db, self.one = db, deployments.begin(db, keyring, asked)
        self.engines = [BatchingEngine(InstantBackend(detector=detector, revision=revision)) for revision in "12"]
        for engine in self.engines:
            engine.start()
        self.seats = Seats(self.seat(0))
        self.seats.put_beside(Beside(self.seat(1, self.one.id), 1.0, judges=False))
        self.comparer = Comparer(db, self.seats)
        self.comparer.start()
        self.moderate = replace(moderator, seats=self.seats, witness=self.comparer.witness)

    def seat(self, at: int, deployment_id: int | None = None) -> Seat:
        engine = self.engines[at]
        judge = Judge(self._db, engine, load_settings().cache, models.register(self._db, engine.model))
        return Seat(judge, deployment_id)

    def compared(self, n: int) -> Deployment:
        """Wait until so many texts were compared."""

        def look() -> Deployment | None:
            now = deployments.get(self._db, self.one.label, detector=self.one.detector)
            return now if now.compared >= n else None

        found = until(look, what=f"{n} compared texts")
        assert found is not None
        return found

    def stop(self) -> None:
        self.comparer.stop()
        for engine in self.engines:
            engine.stop()


@pytest.fixture
def shadowed(db: Database, keyring: Keyring, moderator: Moderator) -> Iterator[Any]:
    made: list[Shadowed] = []

    def make(detector: str) -> Shadowed:
        made.append(Shadowed(db, keyring, moderator, detector))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def new(detectors: str) -> Any:
    return new_job(detectors=detectors, brings_workers=True)


def test_a_detector_that_is_not_the_last_is_compared_by_its_labels(shadowed: Any, db: Database, keyring: Keyring) -> None:
    worker = shadowed("finder")
    for mark in (" [[rev:2]]", ""):
        job = submit(db, keyring, 8, mark=mark, new=new("finder,other"))
        for shard in (0, 1):
            worker.moderate(job.id, shard)
    found = worker.compared(16)
    assert (found.compared, found.agreed, found.errors, found.live_errors) == (16, 8, 0, 0)
    assert comparisons.cells(db, found.id) == {
        Cell("unknown", "label", "clear", "found"): 8, Cell("unknown", "label", "clear", "clear"): 8,
    }  # fmt: skip
    assert found.live_s > 0 < found.candidate_s
    assert scalar(db, "select count(*) from shard where model = 'detector:other'") == 4


def test_texts_that_the_model_did_not_judge_itself_are_not_compared(shadowed: Any, db: Database, keyring: Keyring) -> None:
    worker = shadowed("finder")
    for mark in ("", "", " [[found]]"):  # the second time all are known
        worker.moderate(submit(db, keyring, 4, mark=mark, new=new("finder")).id, 0)
    assert worker.compared(8).compared == 8
    assert scalar(db, "select count(*) from detection where served_by > 0") == 4


def test_texts_without_an_answer_are_counted_as_such(shadowed: Any, db: Database, keyring: Keyring) -> None:
    worker = shadowed("finder")
    job = submit(db, keyring, 4, mark=" [[babble]]", new=new("finder"))
    worker.moderate(job.id, 0)
    found = worker.compared(4)
    assert (found.agreed, found.errors, found.live_errors) == (4, 4, 4)
    assert comparisons.cells(db, found.id) == {Cell("unknown", "label", "error", "error"): 4}


def test_the_guard_of_a_job_that_goes_on_to_a_detector_is_compared_by_severities(
    shadowed: Any, db: Database, keyring: Keyring
) -> None:
    worker = shadowed(GUARD)
    job = submit(db, keyring, 4, mark=" [[rev:2]]", new=new("guard,finder"))
    worker.moderate(job.id, 0)
    found = worker.compared(4)
    assert scalar(db, "select model from shard") == "detector:finder"
    assert comparisons.cells(db, found.id) == {
        Cell("unknown", "severity", "safe", "unsafe"): 4, Cell("unknown", "Violent", "not", "named"): 4,
    }  # fmt: skip


@pytest.mark.parametrize("detectors", ["finder", "finder,other"])
def test_a_shard_that_was_lost_is_not_compared(shadowed: Any, db: Database, keyring: Keyring, detectors: str) -> None:
    worker, seen = shadowed("finder"), []
    job = submit(db, keyring, 4, new=new(detectors))
    held = leases.claim(db, job.id, 0, worker="w", lease_s=60, by=Waits("detector:finder", takes_any=False))
    assert held is not None
    mine = replace(worker.moderate, judge=worker.seats.main.judge, witness=lambda *noticed: seen.append(noticed))
    change(db, "update shard set token = token + 1")  # somebody else has it by now
    mine.hold(held, time.perf_counter(), lambda: True)
    assert seen == []
    change(db, f"update shard set token = {held.token}")
    mine.hold(held, time.perf_counter(), lambda: True)
    assert len(seen) == 1
