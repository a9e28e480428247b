"""What becomes of a shard whose worker cannot write: trouble of the database is not counted against it."""

import threading
from typing import Any

import pytest

from guardfleet.errors import RetryableError
from guardfleet.sealing import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import settling, verdicts
from guardfleet.store.database import Database
from tests.services.stored import scalar, submit
from worker.engine.batching import BatchingEngine
from worker.engine.instant import InstantBackend
from worker.judge import Judge
from worker.leases import LeaseKeeper
from worker.tasks import FINISH_TRIES, Moderator


class Impatient(threading.Event):
    """Waits for nothing."""

    def wait(self, timeout: float | None = None) -> bool:
        return False


@pytest.fixture
def moderator(db: Database, keyring: Keyring) -> Any:
    settings = load_settings()
    engine = BatchingEngine(InstantBackend())
    engine.start()
    judge = Judge(db, engine, settings, verdicts.register_model(db, engine.model))
    leases = LeaseKeeper(db, lease_s=45)
    yield Moderator(db, keyring, judge, leases, settings, "w", Impatient(), lambda: 0.5)
    engine.stop()


def test_a_disk_that_stays_full_is_no_failure_of_the_shard(
    moderator: Moderator, db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(db, keyring, 4)
    tries = 0
    finish = settling.finish

    def full(*args: Any, **kwargs: Any) -> bool:
        nonlocal tries
        tries += 1
        raise RetryableError("PostgreSQL did not answer: could not extend file: No space left on device")

    monkeypatch.setattr(settling, "finish", full)
    for _ in range(moderator.settings.max_failures + 2):
        moderator(job.id, 0)
        assert scalar(db, "select array[claims, failures, state] from shard") == [0, 0, 0]
    assert tries == FINISH_TRIES * (moderator.settings.max_failures + 2)
    monkeypatch.setattr(settling, "finish", finish)
    moderator(job.id, 0)
    assert scalar(db, "select array[claims, failures, state] from shard") == [1, 0, 2]


def test_a_defect_of_the_worker_is_one(
    moderator: Moderator, db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(db, keyring, 4)

    def broken(*args: Any, **kwargs: Any) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(settling, "finish", broken)
    moderator(job.id, 0)
    assert scalar(db, "select array[claims, failures, state] from shard") == [0, 1, 0]
    assert scalar(db, "select last_error from shard") == "ZeroDivisionError in the worker"
