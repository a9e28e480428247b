"""Jobs and shards in a few words, for tests of the store."""

from typing import Any

from guardfleet.intake import Intake
from guardfleet.sealing import Keyring, PayloadRow
from guardfleet.settings import load_settings
from guardfleet.store import settling, shards, verdicts
from guardfleet.store.database import Database
from guardfleet.store.doorbells import Route
from guardfleet.store.ingest import NewJob
from guardfleet.store.jobs import JobView
from guardfleet.store.settling import Row
from guardfleet.store.shards import Claim
from guardfleet.verdict import Judgement, Model
from tests.services.judged import SAFE

BULK = Route(0)
MODEL = Model("m", "0123456789abcdef", "p")


def submit(db: Database, keyring: Keyring, n: int = 10, *, shard_texts: int = 4, new: NewJob | None = None) -> JobView:
    """A sealed job of `n` texts."""
    settings = load_settings(shard_texts=shard_texts)
    with Intake(db, keyring, settings, new or NewJob("test")) as intake:
        intake.add_all((i + 1, PayloadRow(f"id{i}", f"text {i}")) for i in range(n))
        return intake.seal()


def take(db: Database, job: JobView, no: int, *, lease_s: float = 60, worker: str = "w") -> Claim | None:
    """Claim a shard, if it can be had."""
    return shards.claim(db, job.id, no, worker=worker, lease_s=lease_s)


def took(db: Database, job: JobView, no: int, *, lease_s: float = 60, worker: str = "w") -> Claim:
    """Claim a shard."""
    held = take(db, job, no, lease_s=lease_s, worker=worker)
    assert held is not None
    return held


def finish(db: Database, held: Claim, judgement: Judgement = SAFE) -> bool:
    """Finish a shard with one judgement for all of its texts."""
    model_id = verdicts.register_model(db, MODEL)
    return settling.finish(db, held, [Row(f"id{held.first_seq + i}", judgement) for i in range(held.n)], model_id=model_id)


def scalar(db: Database, sql: str) -> Any:
    """The one value of a query."""
    with db.begin() as connection:
        return connection.exec_driver_sql(sql).scalar_one()
