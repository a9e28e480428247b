"""Shards on real PostgreSQL: claims, the fence, hand-backs, messages."""

import threading

import pytest

from guardfleet.domain.states import JobState, ShardState
from guardfleet.domain.verdict import Category, Severity
from guardfleet.errors import NotFoundError
from guardfleet.security.encryption import Keyring
from guardfleet.store import models
from guardfleet.store.jobs import control, figures, views
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, leases, publishing
from guardfleet.store.shards.completion import Row
from tests.services.judged import SAFE, UNSAFE
from tests.services.patience import patience
from tests.services.stored import BULK, MODEL, finish, scalar, submit, take, took


def test_a_shard_is_claimed_once_and_finished_once(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    held = took(db, job, 0)
    assert take(db, job, 0) is None  # a duplicate message
    assert [row.content for row in leases.load(db, keyring, held)] == [f"text {i}" for i in range(4)]
    assert finish(db, held)
    assert not finish(db, held)
    assert take(db, job, 0) is None
    assert scalar(db, "select count(*) from verdict") == 4


def test_a_late_finish_is_fenced_whether_the_shard_is_ready_or_claimed_again(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    late = took(db, job, 0, lease_s=-1)
    assert leases.rescue(db, leases.overdue(db)) == [(job.id, 0)]
    assert not finish(db, late)
    again = took(db, job, 0)
    assert again.token == late.token + 1
    assert not finish(db, late)
    assert not leases.release(db, late)
    assert not leases.fail(db, late, error="x", delay_s=0)
    assert finish(db, again)
    assert scalar(db, "select count(*) from verdict") == 4


def test_an_expired_lease_can_be_claimed_without_waiting_for_the_rescue(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    late = took(db, job, 0, lease_s=-1)
    assert took(db, job, 0).claims == late.claims + 1


def test_a_shard_tried_too_often_is_left_for_the_dispatcher(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 4)
    limits = leases.Limits(claims=2, failures=9)
    for _ in range(2):
        assert leases.claim(db, job.id, 0, worker="w", lease_s=-1, limits=limits)
    assert leases.claim(db, job.id, 0, worker="w", lease_s=-1, limits=limits) is None
    assert publishing.exhausted(db, limits) == []
    assert leases.rescue(db, leases.overdue(db)) == [(job.id, 0)]
    assert publishing.exhausted(db, limits) == [(job.id, 0)]
    assert took(db, job, 0).claims == 3


def test_a_shard_whose_texts_are_gone_says_so(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 4)
    held = took(db, job, 0)
    with db.begin() as connection:
        connection.execute("delete from shard_payload")
    with pytest.raises(NotFoundError, match="texts were deleted"):
        leases.load(db, keyring, held)


def test_a_renewed_lease_is_not_rescued(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    held = took(db, job, 0, lease_s=-1)
    leases.renew(db, [held], lease_s=60)
    assert leases.rescue(db, leases.overdue(db)) == []
    assert finish(db, held)


def test_a_release_gives_the_claim_back_and_a_failure_waits(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    assert leases.release(db, took(db, job, 0))
    again = took(db, job, 0)
    assert (again.claims, again.failures) == (1, 0)
    assert leases.fail(db, again, error="boom", delay_s=3600)
    assert scalar(db, "select claims * 10 + failures from shard where shard_no = 0") == 1
    assert 0 not in [bell.shard_no for bell in publishing.due(db, BULK, limit=10)]


def test_the_last_text_completes_the_job_and_tells_it_once(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    for no in range(3):
        assert views.get(db, job.public_id).state is JobState.RUNNING
        assert finish(db, took(db, job, no), SAFE if no else UNSAFE)
    done = views.get(db, job.public_id)
    assert (done.state, done.done, done.safe, done.unsafe) == (JobState.COMPLETED, 10, 6, 4)
    assert scalar(db, "select string_agg(kind, ',') from outbox") == "batch.completed"
    assert figures.summary(db, done) == {(Severity.SAFE, Category.NONE): 6, (Severity.UNSAFE, Category.VIOLENT): 4}


def test_many_workers_finish_every_shard_exactly_once(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 300, shard_texts=5)
    model_id = models.register(db, MODEL)

    def work(worker: int) -> None:
        for no in [(i * 7 + worker * 13) % 60 for i in range(60)]:
            held = take(db, job, no, lease_s=-1 if (no + worker) % 5 == 0 else 60)
            if held:
                completion.finish(db, held, [Row(f"{held.first_seq + i}", SAFE) for i in range(held.n)], model_id=model_id)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience(60))
    done = views.get(db, job.public_id)
    assert (done.state, done.done) == (JobState.COMPLETED, 300)
    assert scalar(db, "select count(distinct seq) * 1000 + count(*) from verdict") == 300 * 1001


def test_cancelling_drops_what_waits_and_lets_what_runs_finish(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    held = took(db, job, 1)
    control.cancel(db, job.id)
    control.cancel(db, job.id)
    assert views.get(db, job.public_id).state is JobState.CANCELLING
    assert leases.states(db, job.id) == {ShardState.CANCELLED: 2, ShardState.LEASED: 1}
    assert control.settle_cancelled(db, control.cancelling(db)) == 0
    assert finish(db, held)
    assert control.settle_cancelled(db, control.cancelling(db)) == 1
    done = views.get(db, job.public_id)
    assert (done.state, done.done) == (JobState.CANCELLED, 4)
    assert scalar(db, "select string_agg(kind, ',') from outbox") == "batch.cancelled"


@pytest.mark.parametrize("back", ["release", "fail", "rescue", "postpone"])
def test_a_shard_handed_back_to_a_cancelling_job_is_dropped(db: Database, keyring: Keyring, back: str) -> None:
    job = submit(db, keyring, 4)
    held = took(db, job, 0, lease_s=-1)
    control.cancel(db, job.id)
    {
        "release": lambda: leases.release(db, held),
        "fail": lambda: leases.fail(db, held, error="x", delay_s=0),
        "rescue": lambda: leases.rescue(db, leases.overdue(db)),
        "postpone": lambda: leases.postpone(db, held, delay_s=0),
    }[back]()
    assert leases.states(db, job.id) == {ShardState.CANCELLED: 1}
    control.settle_cancelled(db, control.cancelling(db))
    assert views.get(db, job.public_id).state is JobState.CANCELLED


def test_lost_doorbells_are_rung_again_after_a_while(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    published = publishing.due(db, BULK, limit=2)
    publishing.mark_published(db, published)
    assert (publishing.windows(db)[BULK], [b.shard_no for b in publishing.due(db, BULK, limit=9)]) == (2, [2])
    assert publishing.forget_lost(db, publishing.lost(db, BULK, older_than_s=60), older_than_s=60) == 0
    assert publishing.forget_lost(db, publishing.lost(db, BULK, older_than_s=0), older_than_s=0) == 2
    assert [(b.shard_no, b.publish_no) for b in publishing.due(db, BULK, limit=9)] == [(0, 2), (1, 2), (2, 1)]
    assert job.total == 10


def test_a_doorbell_answered_before_it_was_noted_is_not_out(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 4)
    published = publishing.due(db, BULK, limit=9)
    assert leases.fail(db, took(db, job, 0), error="x", delay_s=0)
    publishing.mark_published(db, published)
    assert publishing.windows(db)[BULK] == 0
    assert [bell.shard_no for bell in publishing.due(db, BULK, limit=9)] == [0]


def test_nobody_rings_for_a_shard_that_is_to_be_given_up(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 4)
    limits = leases.Limits(claims=9, failures=1)
    assert leases.fail(db, took(db, job, 0), error="x", delay_s=0)
    assert publishing.due(db, BULK, limit=9, limits=limits) == []
    assert publishing.exhausted(db, limits) == [(job.id, 0)]


def test_a_worker_stopped_in_the_middle_of_a_claim_holds_up_nobody_else(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    published = publishing.due(db, BULK, limit=9)
    with db.begin() as stopped:
        stopped.execute("set local idle_in_transaction_session_timeout = 0")
        stopped.execute("update shard set state = 1, token = token + 1 where shard_no = 0")
        publishing.mark_published(db, published)
        assert publishing.windows(db)[BULK] == 2
        assert publishing.forget_lost(db, publishing.lost(db, BULK, older_than_s=0), older_than_s=0) == 2
        assert leases.rescue(db, leases.overdue(db)) == []
        assert take(db, job, 1) is not None
