"""Two models in one process: neither serves the other's verdicts, from the cache or from a text in work."""

import threading
from collections.abc import Sequence
from typing import Any

from guardfleet.domain.verdict import ServedBy
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import models, verdicts
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from tests.services.moderating import moderator
from tests.services.patience import patience
from tests.services.stored import submit
from worker.engine.engine import BatchingEngine
from worker.engine.interfaces import Answer, Prepared
from worker.engine.testing.marked import InstantBackend
from worker.moderation.judge import Judge
from worker.moderation.seats import Beside, Seat
from worker.moderation.tasks import Moderator

__all__ = ["moderator"]


class Gated(InstantBackend):
    """Answers once the gate is open."""

    def __init__(self, **known: Any) -> None:
        super().__init__(**known)
        self.gate, self.reached = threading.Event(), threading.Event()

    def run(self, batch: Sequence[Prepared]) -> list[Answer]:
        self.reached.set()
        assert self.gate.wait(patience(60))
        return super().run(batch)


def seated(db: Database, engines: list[BatchingEngine], backend: InstantBackend, deployment_id: int | None = None) -> Seat:
    engine = BatchingEngine(backend)
    engine.start()
    engines.append(engine)
    return Seat(Judge(db, engine, load_settings().cache, models.register(db, engine.model)), deployment_id)


def judged(db: Database, job: JobView) -> list[tuple[str, str]]:
    return [(row["revision"], row["served_by"]) for row in verdicts.export(db, job)]


def test_a_text_in_work_with_one_revision_is_judged_again_by_the_other(
    moderator: Moderator, db: Database, keyring: Keyring, engines: list[BatchingEngine]
) -> None:
    slow = Gated(revision="old")
    moderator.seats.put_in(seated(db, engines, slow))
    first, twin = submit(db, keyring, 3), submit(db, keyring, 3)
    thread = threading.Thread(target=moderator, args=(first.id, 0))
    thread.start()
    assert slow.reached.wait(patience(60))
    moderator.seats.put_in(seated(db, engines, InstantBackend(revision="new")))
    moderator(twin.id, 0)  # it would wait for the first one's answers, and this test for ever
    assert judged(db, twin) == [("new", "model")] * 3
    slow.gate.set()
    thread.join(patience(60))
    assert judged(db, first) == [("old", "model")] * 3


def test_stored_verdicts_of_one_revision_serve_no_other(
    moderator: Moderator, db: Database, keyring: Keyring, engines: list[BatchingEngine]
) -> None:
    found = []
    for revision in ("a", "a", "b", "b", "a"):
        moderator.seats.put_in(seated(db, engines, InstantBackend(revision=revision)))
        job = submit(db, keyring, 1)
        moderator(job.id, 0)
        found += judged(db, job)
    assert found == [("a", "model"), ("a", "cache"), ("b", "model"), ("b", "cache"), ("a", "cache")]
    assert ServedBy.CACHE.label == "cache"


def test_a_canary_of_another_name_leaves_the_jobs_that_name_a_model_to_that(
    moderator: Moderator, db: Database, keyring: Keyring, engines: list[BatchingEngine]
) -> None:
    named, free = submit(db, keyring, 1), submit(db, keyring, 1)
    with db.begin() as connection:
        connection.execute("update shard set model = 'instant' where job_id = %(id)s", {"id": named.id})
    large = seated(db, engines, InstantBackend(name="large"), 1)
    moderator.seats.put_beside(Beside(large, 1.0, judges=True))
    for job in (named, free):
        moderator(job.id, 0)
    assert [row["model"] for job in (named, free) for row in verdicts.export(db, job)] == ["instant", "large"]
