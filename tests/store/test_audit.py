"""The audit trail on real rows: it cannot be tampered with, is written with the change or not at all, and forgets in time."""

import datetime as dt
import threading
import uuid
from contextvars import copy_context
from typing import Any

import psycopg
import pytest

from guardfleet.domain import actions
from guardfleet.errors import AwayError, GuardfleetError, StatementError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import audit, files, keys, migrate
from guardfleet.store.audit import Actor, Event, Wanted
from guardfleet.store.events import deliveries, endpoints
from guardfleet.store.jobs import control, creation, intake, intake_recovery, retention, views
from guardfleet.store.postgres.database import Connection, Database
from tests.services.patience import patience
from tests.services.poison import UNITS, change, damaged
from tests.services.stored import LONG_AGO, finished_on, new_job, scalar, submit
from tests.services.webhooks import endpoint
from worker.dispatch.bulkhead import Bulkhead
from worker.dispatch.repairs import Mender

ALL = Wanted()


def trail(db: Database, **asked: Any) -> list[Event]:
    return list(audit.events(db, Wanted(**asked)))


def actions_on(db: Database, subject: str) -> list[str]:
    return [event.action for event in trail(db, subject=subject)]


def written(db: Database, *, days_ago: float, n: int = 1) -> None:
    """Rows of the past, which nobody but a test writes."""
    change(
        db,
        f"""insert into audit_event (at, tenant_id, actor, action, subject)
            select now() - interval '{days_ago} days', 1, 'x', 'job.pause', 'job_' || i from generate_series(1, {n}) i""",
    )


@pytest.mark.parametrize(
    "statement",
    [
        "update audit_event set actor = 'x'",
        "update audit_event set at = now() - interval '9 years'",
        "delete from audit_event",
        "delete from audit_event where action = 'job.create'",
        "truncate audit_event",
        "with gone as (delete from audit_event returning *) select from gone",
        """insert into audit_event (tenant_id, actor, action, subject, public_id)
           select 1, 'x', 'x', 'x', public_id from audit_event on conflict (public_id) do update set actor = 'x'""",
    ],
)
def test_rows_are_neither_changed_nor_deleted(db: Database, keyring: Keyring, statement: str) -> None:
    submit(db, keyring, 1)
    written(db, days_ago=40)
    before = trail(db)
    with pytest.raises(StatementError, match="P0001"), db.begin() as connection:
        connection.execute(statement)
    assert trail(db) == before


def test_a_row_is_kept_for_as_long_as_the_database_insists(db: Database) -> None:
    for days in (actions.LEAST_DAYS - 1, actions.LEAST_DAYS + 1):
        written(db, days_ago=days)
    with pytest.raises(StatementError, match="P0001"):
        change(db, f"delete from audit_event where at < now() - interval '{actions.LEAST_DAYS - 2} days'")
    change(db, f"delete from audit_event where at < now() - interval '{actions.LEAST_DAYS} days'")
    assert len(trail(db, actor="x")) == 1
    settings = load_settings()
    assert settings.retention.audit_days == 400
    with pytest.raises(GuardfleetError):
        load_settings(retention={"audit_days": actions.LEAST_DAYS - 1})


def test_the_dispatcher_deletes_what_is_over_in_pieces_and_says_so(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PIECE", 4)
    written(db, days_ago=401.5, n=10)
    written(db, days_ago=399, n=3)
    before = len(trail(db))
    mender(db).expire_audit()
    kept = trail(db)
    assert [event.detail for event in kept if event.action == "audit.expire"] == [{"rows": 4}, {"rows": 4}, {"rows": 2}]
    assert len(kept) == before - 10 + 3
    assert len(trail(db, actor="x")) == 3
    mender(db).expire_audit()
    assert trail(db) == kept  # nothing was over, so nothing is said


def mender(db: Database, keyring: Keyring | None = None) -> Mender:
    settings = load_settings()
    bulkhead = Bulkhead(db.ping, clock=lambda: 0.0)
    return Mender(db, keyring, "test", settings.retention, settings.tuning, bulkhead)  # type: ignore[arg-type]


def test_a_change_that_fails_leaves_no_row_and_a_row_that_fails_no_change(db: Database, keyring: Keyring) -> None:
    n = len(trail(db))

    def fail(_: Connection, __: uuid.UUID) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        creation.create(db, keyring, new_job(), max_backlog=10, also=fail)
    assert (scalar(db, "select count(*) from job"), len(trail(db))) == (0, n)
    job = submit(db, keyring, 2)
    with damaged(db, "audit_event", "refused"):
        for call in (
            lambda: control.cancel(db, job.id),
            lambda: control.pause(db, job.id),
            lambda: keys.create(db, keyring, name="x"),
            lambda: endpoint(db, keyring, "http://127.0.0.1:9/"),
            lambda: submit(db, keyring, 1),
            lambda: audit.note(db, 1, "job.export", job.label),
        ):
            with pytest.raises(StatementError):
                call()
    after = views.get(db, job.public_id)
    assert (after.state, after.paused_at) == (job.state, None)
    for table, there in (("job", 1), ("api_key", 0), ("endpoint", 0)):
        assert scalar(db, f"select count(*) from {table}") == there
    assert actions_on(db, job.label) == ["job.create"]


def test_a_crash_between_change_and_row_leaves_neither(db: Database, keyring: Keyring) -> None:
    """The session ends after both statements and before the commit, as if its process or server had died."""
    before = trail(db)

    def die(connection: Connection, _: uuid.UUID) -> None:
        assert connection.scalar("select count(*) from audit_event where action = 'job.create'") == 1
        with psycopg.connect(**db.keywords, autocommit=True) as other:
            other.execute("select pg_terminate_backend(%s, 10000)", [connection.info.backend_pid])

    with pytest.raises(AwayError):
        creation.create(db, keyring, new_job(), max_backlog=10, also=die)
    assert trail(db) == before
    assert scalar(db, "select count(*) from job") == 0


@pytest.mark.parametrize(
    ("application", "kind"),
    [
        ("guardfleet-api", "api"), ("guardfleet-dispatcher", "dispatcher"), ("guardfleet-worker", "worker"),
        ("guardfleet-webhooks", "worker"), ("guardfleet-client", "program"), ("guardfleet", "command"),
    ],
)  # fmt: skip
def test_a_process_acts_under_its_own_name(database_url: str, application: str, kind: str) -> None:
    db = Database(database_url, application=application)
    audit.note(db, 1, "job.export", "job_x")
    last = trail(db)[-1]
    db.close()
    assert last.actor_kind == kind
    assert ("@" in last.actor) == (kind in ("program", "command"))
    assert last.request_id is None


def test_who_acts_for_a_request_is_known_in_its_threads_and_nowhere_else(db: Database) -> None:
    def request(name: str) -> None:
        audit.act_as(Actor(actions.KEY, name, f"req_{name}"))
        copied = copy_context()  # as the event loop's threads have it
        thread = threading.Thread(target=copied.run, args=(audit.note, db, 1, "job.export", name))
        thread.start()
        thread.join(patience(20))

    for name in ("a", "b"):
        copy_context().run(request, name)
    audit.note(db, 1, "job.export", "c")
    assert [(event.subject, event.actor, event.request_id) for event in trail(db, actions=["job.export"])][:2] == [
        ("a", "a", "req_a"), ("b", "b", "req_b"),
    ]  # fmt: skip
    assert trail(db, subject="c")[0].actor_kind == "command"


@pytest.mark.parametrize("fact", ["a text of somebody", "naïve", "x" * 101, ["fine", "not fine"], "a\nb"])
def test_a_detail_is_a_name_or_a_number(db: Database, fact: Any) -> None:
    with pytest.raises(ValueError, match="not a text"):
        audit.note(db, 1, "job.export", "job_x", what=fact)
    with pytest.raises(KeyError, match="dance"):
        audit.note(db, 1, "job.dance", "job_x")
    with pytest.raises(StatementError, match="23514"):
        audit.note(db, 1, "job.export", "job_x", many=["x" * 90] * 40)
    assert trail(db, subject="job_x") == []


def test_a_row_of_an_older_version_is_shown_as_of_somebody_unknown(db: Database) -> None:
    change(db, "insert into audit_event (tenant_id, actor, action, subject) values (1, current_user, 'job.create', 'job_old')")
    (event,) = trail(db, subject="job_old")
    assert (event.actor_kind, event.request_id, event.detail) == ("unknown", None, None)
    assert event.as_dict()["detail"] == {}


def test_pages_go_both_ways_over_rows_of_the_same_moment(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PAGE", 3)
    for _ in range(3):
        with db.begin() as connection:
            for no in range(4):
                audit.record(connection, 1, "job.pause", f"job_{no}")
    there = list(audit.events(db, ALL))
    assert [event.id for event in audit.events(db, ALL, newest_first=True)] == [event.id for event in reversed(there)]
    assert len({event.id for event in there}) == len(there) == scalar(db, "select count(*) from audit_event")
    middle = there[5]
    assert trail(db, since=middle.at, until=middle.at + dt.timedelta(microseconds=1)) == [e for e in there if e.at == middle.at]
    assert trail(db, tenant="nobody") == trail(db, tenant_id=7) == []


# What each step of a dispatcher records, on the subject that it changes; None: it moves work, or ends what others began.
STEPS: dict[str, str | None] = {
    "rescue": None, "give_up": None, "relay": None, "settle_cancelled": None, "name_stalls": None,
    "forget_requests": None,  # they repeat nothing any more
    "expire_sessions": None,  # they open nothing any more
    "expire_jobs": "job.run_out", "abandon_idle": "job.abandon", "purge": "job.purge", "expire_files": "file.expire",
    "expire_days": "job.expire", "expire_audit": "audit.expire",
}  # fmt: skip


def test_each_step_of_a_dispatcher_that_deletes_or_ends_something_records_it(database_url: str, keyring: Keyring) -> None:
    db = Database(database_url, application="guardfleet-dispatcher")
    mended = mender(db, keyring)
    steps = {step.name: step.run for step in mended.steps()}
    assert steps.keys() == STEPS.keys()
    subjects: dict[str, str] = {"expire_audit": "audit"}
    for name in ("expire_jobs", "abandon_idle", "purge"):
        job = submit(db, keyring, 8, shard_texts=4)
        UNITS[name][0](db, job)
        subjects[name] = job.label
    old = finished_on(db, keyring, LONG_AGO)
    retention.purge(db, [old.id])
    subjects["expire_days"] = old.label
    subjects["expire_files"] = files.create(db, keyring, tenant_id=1, filename="x").label
    change(db, "update file set expires_at = now() - interval '1 s'")
    written(db, days_ago=500)
    before = {event.id for event in trail(db)}
    for name, run in steps.items():
        run()
        new = [event for event in trail(db) if event.id not in before]
        before |= {event.id for event in new}
        expected = [(STEPS[name], subjects[name], "dispatcher")] if STEPS[name] else []
        assert [(event.action, event.subject, event.actor_kind) for event in new] == expected, name
    db.close()


def test_whoever_takes_over_an_intake_and_whoever_has_nothing_to_do_is_told_apart(db: Database, keyring: Keyring) -> None:
    job = creation.create(db, keyring, new_job(fingerprint=b"f"), max_backlog=10)
    intake_recovery.let_go(db, job)
    taken = intake_recovery.take_over(db, b"f", tenant_id=1)
    assert taken is not None
    assert intake_recovery.take_over(db, b"f", tenant_id=1) is None  # its lease is held
    intake.abandon(db, job.id, "x", token=job.token)  # an old token
    label = views.get_by_id(db, job.id).label
    assert actions_on(db, label) == ["job.create", "job.take_over"]
    control.cancel(db, job.id)
    control.cancel(db, job.id)
    assert actions_on(db, label) == ["job.create", "job.take_over", "job.cancel"]


def test_an_endpoint_that_a_worker_disables_is_recorded(db: Database, keyring: Keyring) -> None:
    made, _ = endpoint(db, keyring, "http://127.0.0.1:9/")
    due = deliveries.claim(db, endpoints.send_test(db, made.public_id, tenant_id=1, kind="batch.completed"), lease_s=9)
    assert due is not None
    assert deliveries.disable(db, due, "gone")
    assert not deliveries.disable(db, due, "gone")
    assert actions_on(db, made.label) == ["endpoint.create", "endpoint.test", "endpoint.disable"]


def test_a_migration_is_recorded_once(db: Database) -> None:
    migrate.upgrade(db)
    assert [event.subject for event in trail(db, actions=["schema.upgrade"])] == [migrate.head()]


def test_one_submit_is_one_row_however_many_shards_it_has(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 300, shard_texts=3)
    assert actions_on(db, job.label) == ["job.create"]
    assert scalar(db, "select count(*) from shard") == 100
