"""Days that are over: texts go as a whole partition, then jobs and verdicts; an interrupted drop is finished later."""

import datetime as dt

import pytest

from guardfleet.errors import NotFoundError
from guardfleet.security.encryption import Keyring
from guardfleet.store import partitions, verdicts
from guardfleet.store.jobs import retention, views
from guardfleet.store.postgres.database import Database
from tests.services.stored import LONG_AGO, finished_on, scalar, submit


def expire(db: Database, *, verdict_days: float) -> list[str]:
    over = retention.over(db, verdict_days=verdict_days)
    return [f"{table} {day}" for table, day in over if retention.expire(db, table, day)]


def days(db: Database) -> list[tuple[str, dt.date]]:
    return [item for item in partitions.existing(db) if item[1] == LONG_AGO]


def test_a_day_goes_in_two_steps_and_takes_its_jobs_along(db: Database, keyring: Keyring) -> None:
    old, fresh = finished_on(db, keyring, LONG_AGO), submit(db, keyring, 2)
    assert expire(db, verdict_days=30) == []  # its texts are not purged yet
    assert retention.purge(db, retention.purgeable(db, older_than_hours=-1)) == 1
    assert scalar(db, f"select count(*) from shard where job_id = {old.id}") == 0
    assert expire(db, verdict_days=100_000) == [f"shard_payload {LONG_AGO}"]
    assert len(list(verdicts.export(db, old))) == 4
    assert expire(db, verdict_days=30) == [f"detection {LONG_AGO}", f"verdict {LONG_AGO}"]
    assert days(db) == []
    with pytest.raises(NotFoundError):
        views.get(db, old.public_id)
    assert scalar(db, "select count(*) from shard_done") == 0
    assert scalar(db, f"select count(*) from audit_event where action = 'job.expire' and subject = '{old.label}'") == 1
    assert views.get(db, fresh.public_id).total == 2
    assert expire(db, verdict_days=30) == []


def test_a_long_reader_of_verdicts_holds_up_no_dispatcher(db: Database, keyring: Keyring) -> None:
    finished_on(db, keyring, LONG_AGO)
    retention.purge(db, retention.purgeable(db, older_than_hours=-1))
    with db.begin() as reader:
        reader.execute("select count(*) from verdict")
        assert f"verdict {LONG_AGO}" not in expire(db, verdict_days=30)
        with db.session() as connection:
            assert connection.scalar("show lock_timeout") == "15s"
    assert f"verdict {LONG_AGO}" in expire(db, verdict_days=30)


def test_a_day_with_an_open_job_stays(db: Database, keyring: Keyring) -> None:
    finished_on(db, keyring, LONG_AGO)
    retention.purge(db, retention.purgeable(db, older_than_hours=-1))
    job = submit(db, keyring, 1)
    with db.begin() as connection:
        connection.execute(f"update job set day = '{LONG_AGO}' where id = {job.id}")
    assert expire(db, verdict_days=1) == []
    assert len(days(db)) == 3


@pytest.mark.parametrize("cut", ["detached", "forgotten"])
def test_a_drop_that_was_cut_off_is_finished(cut: str, db: Database, keyring: Keyring) -> None:
    finished_on(db, keyring, LONG_AGO)
    retention.purge(db, retention.purgeable(db, older_than_hours=-1))
    with db.session() as connection:
        if cut == "detached":
            connection.execute(f"alter table verdict detach partition verdict_{LONG_AGO:%Y%m%d} concurrently")
        else:
            connection.execute("delete from job")
    assert len(expire(db, verdict_days=30)) == 3
    assert days(db) == []
