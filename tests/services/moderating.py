"""A worker's moderator in this process, over the instant engine, that never waits."""

import threading
from collections.abc import Iterator

import pytest

from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import models
from guardfleet.store.postgres.database import Database
from worker.engine.engine import BatchingEngine
from worker.engine.testing.marked import InstantBackend
from worker.moderation.judge import Judge
from worker.moderation.leases import LeaseKeeper
from worker.moderation.seats import Seat, Seats
from worker.moderation.tasks import Moderator


class Impatient(threading.Event):
    """An event whose `wait` returns at once."""

    def wait(self, timeout: float | None = None) -> bool:
        return False


@pytest.fixture
def moderator(db: Database, keyring: Keyring) -> Iterator[Moderator]:
    settings = load_settings()
    engine = BatchingEngine(InstantBackend())
    engine.start()
    judge = Judge(db, engine, settings.cache, models.register(db, engine.model))
    yield Moderator(db, keyring, Seats(Seat(judge)), LeaseKeeper(db, lease_s=45), settings.tuning, "w", Impatient(), lambda: 0.5)
    engine.stop()
