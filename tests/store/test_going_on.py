"""Work that one error must not end: renewing leases, waiting for news, a shard that may or may not have a wrong key."""

import asyncio
import threading

import pytest

from api.http.long_requests import Slots
from api.services.job_watch import Watching
from guardfleet.errors import AwayError, StatementError
from guardfleet.security.encryption import Keyring
from guardfleet.store import installation
from guardfleet.store.jobs import control, views
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import leases
from tests.services.moderating import moderator
from tests.services.patience import patience
from tests.services.stored import scalar, submit
from worker.moderation.leases import LeaseKeeper
from worker.moderation.tasks import Moderator

__all__ = ["moderator"]


def test_leases_are_renewed_after_whatever_was_raised(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    renewed, n = threading.Event(), iter(range(9))

    def renew(*_: object, **__: object) -> None:
        if next(n) == 0:
            raise KeyError("anything")
        renewed.set()

    monkeypatch.setattr(leases, "renew", renew)
    keeper = LeaseKeeper(db, lease_s=0.03)
    keeper.start()
    assert renewed.wait(patience(10))
    keeper.stop()


def test_news_come_after_a_look_that_raised(db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    job, n, look = submit(db, keyring, 1), iter(range(99)), views.get_all

    def get_all(db: Database, ids: list[int]) -> dict[int, views.JobView]:
        if next(n) == 0:
            raise StatementError("a defect", sqlstate="42000")
        return look(db, ids)

    async def run() -> views.JobView:
        watching = Watching(db, Slots("waiting", of_key=9, in_all=9))
        waiting = asyncio.create_task(watching.news(job, within_s=10))
        await asyncio.to_thread(control.pause, db, job.id)
        found = await waiting
        watching.stop()
        return found

    monkeypatch.setattr(views, "get_all", get_all)
    assert asyncio.run(run()).is_paused


def test_a_shard_that_cannot_be_opened_waits_while_nobody_can_say_why(
    moderator: Moderator, db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise AwayError("the database", "it restarts")

    monkeypatch.setattr(installation, "require_key", away)
    job = submit(db, keyring, 1)
    held = leases.claim(db, job.id, 0, worker="w", lease_s=60)
    assert held is not None
    moderator._cannot_open(held, "it does not open")
    assert scalar(db, "select failures from shard") == 0
    assert scalar(db, "select state from shard") == 0
