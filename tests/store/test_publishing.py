"""Which shards are published next: fair shares between tenants and jobs, priorities, pauses."""

import pytest

from guardfleet.errors import RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.store import keys
from guardfleet.store.jobs import control, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import publishing
from tests.services.stored import BULK, finish, new_job, submit, take, took


def job_of(db: Database, keyring: Keyring, n: int, *, tenant_id: int = 1, priority: int = 0) -> JobView:
    """A job of `n` shards of one text."""
    return submit(db, keyring, n, shard_texts=1, new=new_job(name="x", tenant_id=tenant_id, priority=priority))


def other_tenant(db: Database, keyring: Keyring, name: str) -> int:
    caller = keys.authenticate(db, keyring, keys.create(db, keyring, name="k", tenant=name))
    assert caller is not None
    return caller.tenant_id


def ring(db: Database, n: int) -> list[int]:
    """The jobs of the next `n` shards, which are published."""
    bells = publishing.due(db, BULK, limit=n)
    publishing.mark_published(db, bells)
    return [bell.job_id for bell in bells]


def test_a_small_job_of_another_tenant_does_not_wait_for_a_big_one(db: Database, keyring: Keyring) -> None:
    big = job_of(db, keyring, 200)
    assert ring(db, 8) == [big.id] * 8
    small = job_of(db, keyring, 3, tenant_id=other_tenant(db, keyring, "small"))
    assert ring(db, 4) == [small.id] * 3 + [big.id]


def test_slots_that_come_free_one_by_one_are_shared_too(db: Database, keyring: Keyring) -> None:
    """A refill of one slot always takes the tenant with the least in work, not always the first."""
    one, two = job_of(db, keyring, 50), job_of(db, keyring, 50, tenant_id=other_tenant(db, keyring, "b"))
    three = job_of(db, keyring, 50, tenant_id=other_tenant(db, keyring, "c"))
    assert sorted(ring(db, 9)) == sorted([one.id, two.id, three.id] * 3)
    public = {job.id: job for job in (one, two, three)}
    done = dict.fromkeys(public, 0)
    queue = [(job_id, no) for job_id in public for no in range(3)]
    for _ in range(60):
        job_id, no = queue.pop(0)
        finish(db, took(db, public[job_id], no))
        done[job_id] += 1
        bells = publishing.due(db, BULK, limit=1)
        publishing.mark_published(db, bells)
        queue += [(bell.job_id, bell.shard_no) for bell in bells]
    assert max(done.values()) - min(done.values()) <= 3


def test_of_one_tenant_priority_goes_first_and_equals_share(db: Database, keyring: Keyring) -> None:
    low, first, second = job_of(db, keyring, 9, priority=-5), job_of(db, keyring, 9), job_of(db, keyring, 9)
    assert sorted(ring(db, 6)) == sorted([first.id, second.id] * 3)
    control.prioritise(db, low.id, 7)
    assert ring(db, 2) == [low.id] * 2
    with pytest.raises(RejectedError, match="-100 to 100"):
        control.prioritise(db, low.id, 101)


def test_priority_does_not_jump_another_tenant(db: Database, keyring: Keyring) -> None:
    loud = job_of(db, keyring, 9, priority=100)
    calm = job_of(db, keyring, 9, tenant_id=other_tenant(db, keyring, "calm"))
    assert sorted(ring(db, 6)) == sorted([loud.id, calm.id] * 3)


def test_what_is_in_work_counts_and_not_what_waits_for_its_retry(db: Database, keyring: Keyring) -> None:
    from guardfleet.store.shards import leases

    mine, theirs = job_of(db, keyring, 4), job_of(db, keyring, 4, tenant_id=other_tenant(db, keyring, "b"))
    for no in (0, 1):
        assert leases.fail(db, took(db, theirs, no), error="x", delay_s=3600)
    held = took(db, mine, 0)
    assert ring(db, 3) == [theirs.id, mine.id, theirs.id]
    finish(db, held)


def test_a_paused_job_stands_still_and_goes_on_when_resumed(db: Database, keyring: Keyring) -> None:
    job = job_of(db, keyring, 4)
    ring(db, 2)
    held = took(db, job, 0)
    control.pause(db, job.id)
    control.pause(db, job.id)
    assert publishing.windows(db)[BULK] == 0
    assert ring(db, 9) == []
    assert take(db, job, 1) is None  # its message was out already
    assert finish(db, held)
    assert views.get(db, job.public_id).is_paused
    control.resume(db, job.id)
    assert ring(db, 9) == [job.id] * 3
    for no in (1, 2, 3):
        finish(db, took(db, job, no))
    with pytest.raises(RejectedError, match="ended"):
        control.pause(db, job.id)


def test_a_paused_job_can_be_cancelled(db: Database, keyring: Keyring) -> None:
    job = job_of(db, keyring, 2)
    control.pause(db, job.id)
    control.cancel(db, job.id)
    assert views.get(db, job.public_id).state.label == "cancelled"
    assert not views.get(db, job.public_id).is_paused
