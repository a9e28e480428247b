"""How fast a job progresses, when it will be done, and why it does not progress."""

import datetime as dt
from dataclasses import replace

import pytest

from guardfleet.jobs import diagnosis
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store.jobs import control, views
from guardfleet.store.postgres.database import Database
from guardfleet.store.postgres.leader import campaign
from guardfleet.store.shards import health, publishing
from tests.services.stored import BULK, finish, submit, take, took

SETTINGS = load_settings(namespace="acme")


def later(db: Database, seconds: float) -> None:
    """Let time pass for the job's clock."""
    with db.begin() as connection:
        connection.execute(
            f"""update job set started_at = started_at - interval '{seconds} s',
                               progressed_at = progressed_at - interval '{seconds} s'"""
        )


def test_pace_and_eta_follow_the_last_minute(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 400, shard_texts=10)
    assert (job.texts_per_s, job.eta_s) == (0.0, None)
    for no in range(30):  # ten texts every two seconds
        finish(db, took(db, job, no))
        later(db, 2)
    now = views.get(db, job.public_id)
    assert now.texts_per_s == pytest.approx(5, rel=0.2)  # the finishes took a moment too
    assert now.eta_s == pytest.approx(100 / now.texts_per_s)
    still = replace(now, seen_at=now.seen_at + dt.timedelta(minutes=30))
    assert still.texts_per_s < 1e-3
    assert still.eta_s is None
    nearly = replace(now, done=now.total - 10)
    assert nearly.eta_s == pytest.approx(10 / now.texts_per_s)
    assert replace(nearly, seen_at=now.seen_at + dt.timedelta(seconds=8)).eta_s is None  # no matter of pace


def test_a_pause_is_no_time_without_progress(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 40, shard_texts=10)
    finish(db, took(db, job, 0))
    before = views.get(db, job.public_id)
    control.pause(db, job.id)
    assert (before.texts_per_s > 0, views.get(db, job.public_id).texts_per_s) == (True, 0.0)
    later(db, 3600)
    with db.begin() as connection:
        connection.execute("update job set paused_at = paused_at - interval '3600 s'")
    assert views.get(db, job.public_id).texts_per_s < 1e-3
    control.resume(db, job.id)
    after = views.get(db, job.public_id)
    assert after.idle_s == pytest.approx(before.idle_s, abs=2)
    assert after.pace == before.pace
    control.resume(db, job.id)
    assert views.get(db, job.public_id).progressed_at == after.progressed_at


def test_a_job_says_why_it_stands_still(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 2, shard_texts=1)
    assert "no dispatcher is running" in str(diagnosis.explain(db, job, SETTINGS))
    with campaign(db) as leadership:
        assert leadership.try_lead()
        assert diagnosis.explain(db, job, SETTINGS) is None
        publishing.mark_published(db, publishing.due(db, BULK, limit=9))
        with db.begin() as connection:
            connection.execute("update shard set published_at = now() - interval '7 minutes'")
        said = "no worker has taken work from queue acme.bulk for 7 minutes: is one running for it?"
        assert diagnosis.explain(db, job, SETTINGS) == said
        (stall,) = health.stalls(db, after_s=300)
        assert stall.route == BULK
        held = take(db, job, 0)
        assert held is not None
        assert health.stalls(db, after_s=300) == []  # a worker is at it
        control.pause(db, job.id)
        assert "paused since" in str(diagnosis.explain(db, views.get(db, job.public_id), SETTINGS))
        control.cancel(db, job.id)
        assert finish(db, held)
        control.settle_cancelled(db, control.cancelling(db))
        assert diagnosis.explain(db, views.get(db, job.public_id), SETTINGS) is None


def test_a_dead_workers_shards_are_said_to_wait_for_their_lease(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 3, shard_texts=1)
    finish(db, took(db, job, 0))
    for no in (1, 2):
        took(db, job, no)
    later(db, 20)
    with campaign(db) as leadership:
        assert leadership.try_lead()

        def said() -> str | None:
            return diagnosis.explain(db, views.get(db, job.public_id), SETTINGS)

        with db.begin() as connection:  # renewed a moment ago
            connection.execute("update shard set lease_until = now() + interval '40 s' where state = 1")
        assert said() is None
        with db.begin() as connection:
            connection.execute("update shard set lease_until = now() + interval '12 s' where shard_no = 1")
        assert said() == "a shard is held by a worker that has not been heard of lately: others can take over in 12 s."
        with db.begin() as connection:
            connection.execute("update shard set lease_until = now() + interval '9 s' where shard_no = 2")
        assert "2 shards are held" in str(said())
