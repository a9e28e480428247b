"""An error in a dispatcher's tick stops only its own unit: every other step, shard, job and delivery continues."""

import datetime as dt
import itertools
import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest

from guardfleet.broker.celery_app import Publisher, make_app
from guardfleet.client.direct import DirectClient
from guardfleet.domain.options import JobOptions
from guardfleet.domain.states import JobState
from guardfleet.errors import ConfigurationError, FatalError, RejectedError, RetryableError, StatementError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import files, keys, sessions
from guardfleet.store.events import deliveries
from guardfleet.store.jobs import retention, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import leases, publishing
from guardfleet.store.shards.leases import Limits
from guardfleet.telemetry import metrics
from tests.services.fixtures import with_broker
from tests.services.fleet import until
from tests.services.patience import patience
from tests.services.poison import UNITS, allow, change, exhausted_shard, nested_blob, none, refuse, state_of
from tests.services.stored import LONG_AGO, finish, finished_on, new_job, scalar, submit, take, took
from worker.dispatch.dispatcher import Dispatcher
from worker.dispatch.poison import TRIES, give_up

RAISED = [RuntimeError, RecursionError, MemoryError, RetryableError, RejectedError, ConfigurationError, FatalError, KeyError]


@pytest.fixture
def dispatcher(db: Database, keyring: Keyring, settings: Settings) -> Iterator[Dispatcher]:
    publisher = Publisher(make_app(settings, "test"), settings)
    yield Dispatcher(db, publisher, keyring, settings)
    publisher.close()


def live(dispatcher: Dispatcher, look: Callable[[], bool], what: str) -> None:
    """Run the dispatcher as its process does until the condition holds; it must not have ended by itself."""
    thread = threading.Thread(target=dispatcher.run, daemon=True)
    thread.start()
    try:
        until(lambda: look() or not thread.is_alive(), what=what)
        assert thread.is_alive(), "the dispatcher has ended"
    finally:
        dispatcher.stop()
        thread.join(patience(20))


def fail(kind: type[Exception]) -> None:
    raise kind("no text in a log")


def test_every_step_is_kept_to_itself(dispatcher: Dispatcher) -> None:
    """Each step in turn raises each kind of exception; all the others run in the same tick."""
    steps = dispatcher.steps
    for step in steps:
        for kind in RAISED:
            ran: list[str] = []
            others = [replace(other, run=partial(ran.append, other.name), every_s=0.0) for other in steps if other != step]
            broken = Dispatcher(dispatcher.db, dispatcher.publisher, dispatcher.keyring, dispatcher.settings)
            at = steps.index(step)
            broken.steps = [*others[:at], replace(step, run=partial(fail, kind)), *others[at:]]
            before = metrics.RAISED.labels(step.name)._value.get()
            broken.tick()
            assert ran == [other.name for other in others], (step.name, kind)
            assert metrics.RAISED.labels(step.name)._value.get() == before + 1


def test_a_step_that_raises_is_left_alone_for_a_while_and_tried_again(dispatcher: Dispatcher) -> None:
    now: list[float] = [0.0]
    tries: list[float] = []

    def fail_again() -> None:
        tries.append(now[0])
        raise RuntimeError

    patient = Dispatcher(dispatcher.db, dispatcher.publisher, dispatcher.keyring, dispatcher.settings, clock=lambda: now[0])
    patient.steps = [replace(dispatcher.steps[0], run=fail_again)]
    while now[0] < 200:
        patient.tick()
        now[0] += 0.5
    assert tries[:4] == [0.0, 1.0, 3.0, 7.0]
    assert all(later - earlier <= 60.5 for earlier, later in itertools.pairwise(tries))


@with_broker("redis")
@pytest.mark.parametrize("step", UNITS)
def test_one_unit_that_is_refused_costs_no_other(step: str, db: Database, keyring: Keyring, dispatcher: Dispatcher) -> None:
    prepare, table, is_done = UNITS[step]
    poisoned, other = (submit(db, keyring, 8, shard_texts=4) for _ in range(2))
    for job in (poisoned, other):
        prepare(db, job)
    refuse(db, table, poisoned)
    before = metrics.RAISED.labels(step)._value.get()
    live(dispatcher, lambda: is_done(db, other) and metrics.RAISED.labels(step)._value.get() > before, f"{step} of the other job")
    assert not is_done(db, poisoned)


@with_broker("redis")
def test_an_event_that_is_refused_holds_up_no_other(
    db: Database, keyring: Keyring, dispatcher: Dispatcher, settings: Settings
) -> None:
    producer = DirectClient.connect(settings)
    hook = JobOptions(callback_url="http://127.0.0.1:9/x")
    poisoned, other = (producer.submit(["a"], hook).job for _ in range(2))
    refuse(db, "delivery", poisoned, "insert")
    for job in (poisoned, other):
        held = take(db, job, 0)
        assert held
        assert finish(db, held)
    published = "select count(*) from delivery where published_at is not null"
    live(dispatcher, lambda: scalar(db, published) == 1, "the other's delivery")
    assert scalar(db, f"select count(*) from outbox where job_id = {poisoned.id}") == 1
    allow(db, "delivery", poisoned)
    assert deliveries.relay(db, deliveries.events(db)) == 1  # it has only waited
    producer.db.close()


@with_broker("redis")
@pytest.mark.parametrize("sqlstate", ["57014", "53300"])
def test_a_statement_time_out_or_no_connection_is_waited_for(
    sqlstate: str, db: Database, keyring: Keyring, dispatcher: Dispatcher
) -> None:
    prepare, table, is_done = UNITS["rescue"]
    slow, other = (submit(db, keyring, 8, shard_texts=4) for _ in range(2))
    for job in (slow, other):
        prepare(db, job)
    refuse(db, table, slow, code=sqlstate)
    live(dispatcher, lambda: is_done(db, other), "the rescue of the other job")
    allow(db, table, slow)
    again = Dispatcher(db, dispatcher.publisher, keyring, dispatcher.settings)
    live(again, lambda: is_done(db, slow), "the rescue of what was slow")


@with_broker("redis")
def test_a_delivery_whose_mark_is_refused_holds_up_no_other(
    db: Database, keyring: Keyring, dispatcher: Dispatcher, settings: Settings
) -> None:
    hook = new_job(name="x", callback_url="http://127.0.0.1:9/x", callback_secret="whsec_" + "a" * 32)
    poisoned, other = (submit(db, keyring, 1, new=hook) for _ in range(2))
    for job in (poisoned, other):
        assert finish(db, took(db, job, 0))
    deliveries.relay(db, deliveries.events(db))
    refuse(db, "delivery", poisoned, "update")
    before = metrics.RAISED.labels("mark_deliveries")._value.get()
    published = f"select count(published_at) from delivery where job_id = {other.id}"
    live(
        dispatcher,
        lambda: scalar(db, published) == 1 and metrics.RAISED.labels("mark_deliveries")._value.get() > before,
        "its mark",
    )
    assert scalar(db, f"select count(published_at) from delivery where job_id = {poisoned.id}") == 0


@with_broker("redis")
def test_a_day_that_cannot_go_holds_up_no_other(db: Database, keyring: Keyring, dispatcher: Dispatcher) -> None:
    poisoned, other = (finished_on(db, keyring, day) for day in (LONG_AGO, LONG_AGO + dt.timedelta(days=1)))
    assert retention.purge(db, retention.purgeable(db, older_than_hours=-1)) == 2
    refuse(db, "job", poisoned, "delete")
    before = metrics.RAISED.labels("expire_days")._value.get()
    left = "select count(*) from job where id = "
    live(dispatcher, lambda: scalar(db, f"{left}{other.id}") == 0, "the end of the other day")
    assert metrics.RAISED.labels("expire_days")._value.get() == before + 2  # of its verdicts and its detections
    assert scalar(db, f"{left}{poisoned.id}") == 1


@with_broker("redis")
def test_a_file_that_cannot_go_holds_up_no_other(dispatcher: Dispatcher, keyring: Keyring) -> None:
    db = dispatcher.db
    _, other = (files.create(db, keyring, tenant_id=1, filename=name) for name in ("poisoned", "other"))
    change(db, "update file set expires_at = now() - interval '1 s'")
    change(db, "alter table file add check (filename <> 'poisoned' or data_key is not null)")
    gone = "select count(*) from file where data_key is null and filename = "
    live(dispatcher, lambda: scalar(db, f"{gone}'other'") == 1, "the end of the other file")
    assert scalar(db, f"{gone}'poisoned'") == 0
    assert files.left(db) == [other.public_id]


@with_broker("redis")
def test_no_step_is_without_its_case(dispatcher: Dispatcher) -> None:
    """A new step joins `UNITS`, or says here why it has no units that a row could refuse."""
    elsewhere = {
        "relay": "test_an_event_that_is_refused_holds_up_no_other",
        "publish_deliveries": "test_a_delivery_whose_mark_is_refused_holds_up_no_other",
        "publish_shards": "mark_shards and forget_lost",
        "count_work": "reads, and writes rows of its own",
        "count_workers": "reads only",
        "count_deliveries": "reads only",
        "measure_size": "one statement",
        "ask_broker": "asks the broker",
        "name_stalls": "reads only",
        "expire_files": "test_a_file_that_cannot_go_holds_up_no_other",
        "forget_requests": "one statement",
        "expire_sessions": "one statement",
        "expire_audit": "one statement",
        "expire_days": "test_a_day_that_cannot_go_holds_up_no_other",
    }
    assert {step.name for step in dispatcher.steps} <= {*UNITS, *elsewhere}


@with_broker("redis")
@pytest.mark.parametrize("damage", ["another key", "a cut blob", "no zlib", "no JSON", "no blob"])
def test_a_shard_that_cannot_be_opened_ends_and_each_text_is_counted_once(
    damage: str, db: Database, keyring: Keyring, dispatcher: Dispatcher
) -> None:
    poisoned, other = (submit(db, keyring, 8, shard_texts=8) for _ in range(2))
    harm(db, keyring, poisoned, damage)
    for job in (poisoned, other):
        exhausted_shard(db, job)
    is_halved = none("failures = 99")
    live(
        dispatcher,
        lambda: state_of(db, poisoned) is JobState.COMPLETED and is_halved(db, other),
        "the end of one, halves of the other",
    )
    ended = views.get(db, poisoned.public_id)
    assert (ended.done, ended.error) == (8, 8)
    assert scalar(db, f"select count(distinct seq) from verdict where job_id = {poisoned.id}") == 8


def harm(db: Database, keyring: Keyring, job: JobView, damage: str) -> None:
    held = take(db, job, 0)
    assert held
    assert held.data_key
    assert leases.release(db, held)
    plain = {"no zlib": b"x", "no JSON": zlib.compress(b"[[")}.get(damage)
    with db.begin() as connection:
        if damage == "no blob":
            connection.execute(f"delete from shard_payload where job_id = {job.id}")
        elif damage == "another key":
            connection.execute("update job set data_key = %s where id = %s", (Keyring(OTHER_KEY).new_data_key(), job.id))
        elif plain is None:
            connection.execute(f"update shard_payload set blob = substr(blob, 1, 20) where job_id = {job.id}")
        else:
            place = b"%d/0/zlib-json" % job.id
            sealed = keyring.encrypt_bytes(held.data_key, plain, associated_data=place)
            connection.execute("update shard_payload set blob = %s where job_id = %s", (sealed, job.id))


OTHER_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def test_a_shard_whose_rows_cannot_be_written_ends_without_them(db: Database, keyring: Keyring) -> None:
    job, limits = submit(db, keyring, 1), Limits(6, 5)
    exhausted_shard(db, job)
    change(
        db,
        """create function refuse() returns trigger language plpgsql as
               $f$ begin if new.id is not null then raise exception using errcode = '22P05'; end if; return new; end $f$;
               create trigger refuse before insert on verdict for each row execute function refuse()""",
    )
    for _ in range(TRIES):
        assert publishing.exhausted(db, limits) == [(job.id, 0)]
        with pytest.raises(StatementError):
            give_up(db, keyring, (job.id, 0), limits, lease_s=60)
        assert publishing.exhausted(db, limits) == []  # also for a standby that takes over
        with db.begin() as connection:
            connection.execute("update shard set next_attempt_at = now()")
    give_up(db, keyring, (job.id, 0), limits, lease_s=60)
    assert state_of(db, job) is JobState.COMPLETED
    assert scalar(db, "select count(*) from verdict where id is null and error = 'abandoned'") == 1


def test_a_dispatcher_that_died_over_a_shard_does_not_open_it_for_ever(db: Database, keyring: Keyring) -> None:
    job, limits = submit(db, keyring, 2, shard_texts=2), Limits(6, 5)
    exhausted_shard(db, job)
    for _ in range(TRIES):
        held = take(db, job, 0, lease_s=-1)
        assert held
        leases.begin_giving_up(db, held)  # and out of memory
    give_up(db, keyring, (job.id, 0), limits, lease_s=60)
    ended = views.get(db, job.public_id)
    assert (ended.state, ended.error, ended.done) == (JobState.COMPLETED, 2, 2)


def test_the_rows_of_a_shard_keep_their_verdicts_where_one_has_metadata_of_the_version_before(
    db: Database, keyring: Keyring
) -> None:
    job = submit(db, keyring, 8, shard_texts=8)
    deep = nested_blob(db, keyring, job, depths=range(960, 968))
    held = take(db, job, 0)
    assert held
    rows = leases.load(db, keyring, held)
    assert [row.id for row in rows] == [row[0] for row in deep]
    assert finish(db, held)


def test_sessions_that_are_over_are_deleted(dispatcher: Dispatcher, db: Database, keyring: Keyring) -> None:
    caller = keys.authenticate(db, keyring, keys.create(db, keyring, name="k"))
    assert caller is not None
    over, going_on = (sessions.begin_by_key(db, caller, hours=hours) for hours in (-1.0, 1.0))
    dispatcher.tick()
    assert scalar(db, "select count(*) from console_session") == 1
    assert sessions.find(db, over) is None
    assert sessions.find(db, going_on) is not None
