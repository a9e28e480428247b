"""What a job took of the devices: each text's share of its batches, added up in the commits of its shards."""

import threading
from collections.abc import Sequence

import pytest

from guardfleet.security.encryption import Keyring
from guardfleet.store import models
from guardfleet.store.jobs import views
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import handoff
from guardfleet.store.shards.handoff import Provisional
from tests.services.judged import SAFE
from tests.services.moderating import moderator
from tests.services.patience import patience
from tests.services.stored import MODEL, finish, new_job, submit, take, took
from worker.engine.engine import BatchingEngine
from worker.engine.interfaces import Answer, Prepared
from worker.engine.testing.marked import InstantBackend
from worker.moderation.tasks import Moderator

__all__ = ["moderator"]
WAIT_S = patience(10)


class Held(InstantBackend):
    """An instant backend that begins its first batch once the test has submitted everything."""

    def __init__(self, streams: int) -> None:
        super().__init__(budget_tokens=10_000, max_rows=100)
        self.streams, self.open = streams, threading.Event()

    def run(self, batch: Sequence[Prepared]) -> list[Answer]:
        assert self.open.wait(WAIT_S)
        return super().run(batch)


@pytest.mark.parametrize("streams", [1, 4])
def test_requests_in_one_batch_share_its_seconds_by_their_tokens(streams: int) -> None:
    backend = Held(streams)
    engine = BatchingEngine(backend)
    few, many = engine.submit(["a" * 40]), engine.submit(["b" * 40, "c" * 40, "d" * 40])
    backend.open.set()
    engine.start()
    one, three = few.result(WAIT_S).timings, many.result(WAIT_S).timings
    engine.stop()
    assert one.batches == three.batches == 1
    assert one.device_s == three.device_s > 0
    assert one.share_s + three.share_s == pytest.approx(one.device_s / streams)
    assert three.share_s == pytest.approx(3 * one.share_s)


def test_a_job_adds_up_what_its_shards_took_and_nothing_for_known_texts(
    moderator: Moderator, db: Database, keyring: Keyring
) -> None:
    job = submit(db, keyring, 8)
    assert job.device_s == 0
    moderator(job.id, 0)
    first = views.get(db, job.public_id).device_s
    moderator(job.id, 1)
    assert 0 < first < views.get(db, job.public_id).device_s
    same = submit(db, keyring, 8)  # all of its verdicts are known
    moderator(same.id, 0)
    assert (views.get(db, same.public_id).done, views.get(db, same.public_id).device_s) == (4, 0)


def test_the_first_model_of_two_counts_too(db: Database, keyring: Keyring) -> None:
    model_id = models.register(db, MODEL)
    job = submit(db, keyring, 1, new=new_job(escalate_to="large", brings_workers=True))
    held = took(db, job, 0)
    assert handoff.pass_on(db, keyring, held, Provisional(model_id, [SAFE]), device_s=2.5)
    assert not handoff.pass_on(db, keyring, held, Provisional(model_id, [SAFE]), device_s=2.5)  # fenced: nothing is added
    again = take(db, job, 0)
    assert again is not None
    finish(db, again)
    assert views.get(db, job.public_id).device_s == pytest.approx(2.5)
