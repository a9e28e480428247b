"""Short helpers for jobs and shards, for tests of the store."""

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from guardfleet.client.job import Numbered
from guardfleet.domain.options import JobOptions
from guardfleet.domain.verdict import Judgement, Model
from guardfleet.jobs.intake import Intake
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import models
from guardfleet.store.jobs import views
from guardfleet.store.jobs.creation import NewJob
from guardfleet.store.jobs.views import JobView
from guardfleet.store.partitions import ensure_day
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, leases
from guardfleet.store.shards.completion import Row
from guardfleet.store.shards.leases import Claim
from guardfleet.store.shards.publishing import Route
from tests.services.judged import SAFE

BULK = Route(0)
MODEL = Model("m", "0123456789abcdef", "p")
LONG_AGO = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=270)


def new_job(name: str = "test", **asked: Any) -> NewJob:
    """A job of these options, and of these other fields of `NewJob`."""
    own = {field: asked.pop(field) for field in NewJob.__dataclass_fields__ if field in asked}
    return NewJob(JobOptions(name=name, **asked), **own)


@dataclass(frozen=True)
class Rows:
    """Numbered rows as a client accepts them."""

    each: Iterable[Numbered]
    name: str = "rows"
    is_repeatable: bool = False

    def rows(self) -> Iterator[Numbered]:
        """Return the rows of a query."""
        return iter(self.each)


def submit(
    db: Database, keyring: Keyring, n: int = 10, *, shard_texts: int = 4, new: NewJob | None = None, mark: str = ""
) -> JobView:
    """A sealed job of `n` texts, each with this mark of the instant engine."""
    settings = load_settings(shard_texts=shard_texts, webhook_allow_networks=("127.0.0.0/8",))
    with Intake(db, keyring, settings, new or new_job()) as intake:
        intake.add_all((i + 1, PayloadRow(f"id{i}", f"text {i}{mark}")) for i in range(n))
        return intake.seal()


def take(db: Database, job: JobView, no: int, *, lease_s: float = 60, worker: str = "w") -> Claim | None:
    """Claim a shard; None if it cannot be claimed."""
    return leases.claim(db, job.id, no, worker=worker, lease_s=lease_s)


def took(db: Database, job: JobView, no: int, *, lease_s: float = 60, worker: str = "w") -> Claim:
    """Claim a shard."""
    held = take(db, job, no, lease_s=lease_s, worker=worker)
    assert held is not None
    return held


def finish(db: Database, held: Claim, judgement: Judgement = SAFE) -> bool:
    """Finish a shard with one judgement for all of its texts."""
    model_id = models.register(db, MODEL)
    rows = [Row(f"id{held.first_seq + i}", judgement) for i in range(held.n)]
    return completion.finish(db, held, rows, model_id=model_id) is not None


def finished_on(db: Database, keyring: Keyring, day: dt.date) -> JobView:
    """A finished job, moved to another day with all of its rows."""
    job = submit(db, keyring, 4, shard_texts=2)
    with db.begin() as connection:
        ensure_day(connection, day)
        for table, column in (("job", "id"), ("shard", "job_id"), ("shard_payload", "job_id")):
            connection.execute(f"update {table} set day = '{day}' where {column} = {job.id}")
    job = views.get(db, job.public_id)
    for no in (0, 1):
        finish(db, took(db, job, no))
    return views.get(db, job.public_id)


def scalar(db: Database, sql: str) -> Any:
    """The one value of a query."""
    with db.begin() as connection:
        return connection.scalar(sql)
