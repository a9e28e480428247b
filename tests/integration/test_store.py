"""The store on real PostgreSQL: migrations, the fence, the hand-backs, pages in commit order."""

import datetime as dt
import os
import pathlib
import subprocess
import sys
import threading
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from guardfleet.errors import ConfigurationError, NotFoundError, RejectedError
from guardfleet.intake import Intake
from guardfleet.sealing import Keyring, PayloadRow
from guardfleet.settings import load_settings
from guardfleet.states import JobState, ShardState
from guardfleet.store import deliveries, doorbells, jobs, keys, migrate, retention, shards, verdicts
from guardfleet.store.database import Database
from guardfleet.store.doorbells import Route
from guardfleet.store.jobs import JobView, NewJob
from guardfleet.store.schema import Base
from guardfleet.store.shards import Claim, Row
from guardfleet.store.verdicts import Cursor
from guardfleet.verdict import Category, Judgement, Model, ServedBy, Severity, failure
from tests.services.fixtures import SECRET_KEY

SAFE = Judgement(Severity.SAFE, probabilities=(0.9, 0.08, 0.02), input_tokens=10, output_tokens=8)
BULK = Route(0)
MODEL = Model("m", "0123456789abcdef", "p")


def submit(db: Database, keyring: Keyring, n: int = 10, *, shard_texts: int = 4, new: NewJob | None = None) -> JobView:
    settings = load_settings(shard_texts=shard_texts)
    with Intake(db, keyring, settings, new or NewJob("test")) as intake:
        intake.add_all((i + 1, PayloadRow(f"id{i}", f"text {i}")) for i in range(n))
        return intake.seal()


def take(db: Database, job: JobView, no: int, *, lease_s: float = 60, worker: str = "w") -> Claim | None:
    return shards.claim(db, job.id, no, worker=worker, lease_s=lease_s)


def took(db: Database, job: JobView, no: int, *, lease_s: float = 60, worker: str = "w") -> Claim:
    held = take(db, job, no, lease_s=lease_s, worker=worker)
    assert held is not None
    return held


def finish(db: Database, held: Claim, judgement: Judgement = SAFE) -> bool:
    model_id = verdicts.register_model(db, MODEL)
    return shards.finish(db, held, [Row(f"id{held.first_seq + i}", judgement) for i in range(held.n)], model_id=model_id)


def scalar(db: Database, sql: str) -> Any:
    with db.begin() as connection:
        return connection.exec_driver_sql(sql).scalar_one()


def test_migrations_make_what_the_models_say(empty_database_url: str) -> None:
    db = Database(empty_database_url)
    assert migrate.current(db) is None
    with pytest.raises(ConfigurationError, match="guardfleet db upgrade"):
        migrate.require_head(db)
    assert migrate.upgrade(db) == migrate.head() == migrate.current(db)
    with db.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    db.close()


def described(url: str) -> dict[str, Any]:
    """Tables, columns, constraints and indexes as the catalogue has them; partitions and alembic's own table left out."""
    with psycopg.connect(url) as connection:
        ours = "c.relnamespace = 'public'::regnamespace and c.relname <> 'alembic_version' and not c.relispartition"
        queries = {
            "tables": f"""select relname, relkind, reloptions, pg_get_partkeydef(oid) from pg_class c
                          where relkind in ('r','p') and {ours}""",
            "columns": f"""select c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                           pg_get_expr(d.adbin, d.adrelid) from pg_attribute a join pg_class c on c.oid = a.attrelid
                           left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
                           where a.attnum > 0 and c.relkind in ('r','p') and {ours}""",
            "constraints": f"""select c.relname, conname, pg_get_constraintdef(k.oid) from pg_constraint k join pg_class c
                               on c.oid = k.conrelid where {ours}""",
            "indexes": f"select pg_get_indexdef(i.indexrelid) from pg_index i join pg_class c on c.oid = i.indrelid where {ours}",
        }
        return {name: sorted(map(str, connection.execute(sql).fetchall())) for name, sql in queries.items()}  # type: ignore[call-overload]


def test_a_database_made_from_the_models_is_the_migrated_one_to_the_last_index(database_url: str, empty_database_url: str) -> None:
    from sqlalchemy import create_engine

    engine = create_engine(empty_database_url)
    Base.metadata.create_all(engine)
    engine.dispose()
    from_models, migrated = described(empty_database_url), described(database_url)
    for part, rows in migrated.items():
        assert from_models[part] == rows, part


def test_racing_migrations_take_turns(empty_database_url: str) -> None:
    done: list[str] = []

    def run() -> None:
        db = Database(empty_database_url, pool_size=2)
        done.append(migrate.upgrade(db))
        db.close()

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert done == [migrate.head()] * 3


def test_the_wheel_works_without_the_checkout(tmp_path: pathlib.Path, empty_database_url: str) -> None:
    import zipfile

    root = pathlib.Path(__file__).parents[2]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    assert {path.name for path in site.iterdir()} - {"guardfleet-0.1.0.dist-info"} == {"guardfleet", "worker", "producer", "api"}
    assert all((site / package / "py.typed").is_file() for package in ("guardfleet", "worker", "producer", "api"))
    environment = os.environ | {
        "PYTHONPATH": str(site),
        "GUARDFLEET_DATABASE_URL": empty_database_url,
        "GUARDFLEET_SECRET_KEY": SECRET_KEY,
    }
    upgraded = subprocess.run(
        [sys.executable, "-m", "guardfleet", "db", "upgrade"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert upgraded.stdout.strip() == migrate.head(), upgraded.stderr
    code = "from worker.engine.loading import load; print(load('demo').network.name_or_path)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert loaded.stdout.strip() == str(site / "guardfleet" / "_demo_model"), loaded.stderr


def test_a_shard_is_claimed_once_and_finished_once(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    held = took(db, job, 0)
    assert take(db, job, 0) is None  # a duplicate doorbell
    assert [row.content for row in shards.load(db, keyring, held)] == [f"text {i}" for i in range(4)]
    assert finish(db, held)
    assert not finish(db, held)
    assert take(db, job, 0) is None
    assert scalar(db, "select count(*) from verdict") == 4


def test_a_late_finish_is_fenced_whether_the_shard_is_ready_or_claimed_again(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    late = took(db, job, 0, lease_s=-1)
    assert shards.rescue(db) == [(job.id, 0)]
    assert not finish(db, late)
    again = took(db, job, 0)
    assert again.token == late.token + 1
    assert not finish(db, late)
    assert not shards.release(db, late)
    assert not shards.fail(db, late, error="x", delay_s=0)
    assert finish(db, again)
    assert scalar(db, "select count(*) from verdict") == 4


def test_an_expired_lease_can_be_claimed_without_waiting_for_the_rescue(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    late = took(db, job, 0, lease_s=-1)
    assert took(db, job, 0).claims == late.claims + 1


def test_a_shard_tried_too_often_is_left_for_the_dispatcher(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 4)
    limits = shards.Limits(claims=2, failures=9)
    for _ in range(2):
        assert shards.claim(db, job.id, 0, worker="w", lease_s=-1, limits=limits)
    assert shards.claim(db, job.id, 0, worker="w", lease_s=-1, limits=limits) is None
    assert doorbells.exhausted(db, limits) == []
    assert shards.rescue(db) == [(job.id, 0)]
    assert doorbells.exhausted(db, limits) == [(job.id, 0)]
    assert took(db, job, 0).claims == 3


def test_a_shard_whose_texts_are_gone_says_so(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 4)
    held = took(db, job, 0)
    with db.begin() as connection:
        connection.exec_driver_sql("delete from shard_payload")
    with pytest.raises(NotFoundError, match="texts are not there"):
        shards.load(db, keyring, held)


def test_a_process_with_another_key_does_not_start_on_open_jobs(db: Database, keyring: Keyring) -> None:
    from guardfleet.sealing import new_secret_key

    other = Keyring(new_secret_key())
    jobs.require_key(db, other)
    submit(db, keyring, 4)
    jobs.require_key(db, keyring)
    with pytest.raises(ConfigurationError, match=f"secret key {keyring.key_id}, this process has {other.key_id}"):
        jobs.require_key(db, other)


def test_a_renewed_lease_is_not_rescued(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    held = took(db, job, 0, lease_s=-1)
    shards.renew(db, [held], lease_s=60)
    assert shards.rescue(db) == []
    assert finish(db, held)


def test_a_release_gives_the_claim_back_and_a_failure_waits(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    assert shards.release(db, took(db, job, 0))
    again = took(db, job, 0)
    assert (again.claims, again.failures) == (1, 0)
    assert shards.fail(db, again, error="boom", delay_s=3600)
    assert scalar(db, "select claims * 10 + failures from shard where shard_no = 0") == 1
    assert 0 not in [bell.shard_no for bell in doorbells.due(db, BULK, limit=10)]


def test_the_last_text_completes_the_job_and_tells_it_once(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    for no in range(3):
        assert jobs.get(db, job.public_id).state is JobState.RUNNING
        assert finish(db, took(db, job, no), SAFE if no else Judgement(Severity.UNSAFE, Category.VIOLENT))
    done = jobs.get(db, job.public_id)
    assert (done.state, done.done, done.safe, done.unsafe) == (JobState.COMPLETED, 10, 6, 4)
    assert scalar(db, "select string_agg(kind, ',') from outbox") == "batch.completed"
    assert jobs.summary(db, done) == {(0, 0): 6, (2, 1): 4}


def test_many_workers_finish_every_shard_exactly_once(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 300, shard_texts=5)
    model_id = verdicts.register_model(db, MODEL)

    def work(worker: int) -> None:
        for no in [(i * 7 + worker * 13) % 60 for i in range(60)]:
            held = take(db, job, no, lease_s=-1 if (no + worker) % 5 == 0 else 60)
            if held:
                shards.finish(db, held, [Row(f"{held.first_seq + i}", SAFE) for i in range(held.n)], model_id=model_id)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    done = jobs.get(db, job.public_id)
    assert (done.state, done.done) == (JobState.COMPLETED, 300)
    assert scalar(db, "select count(distinct seq) * 1000 + count(*) from verdict") == 300 * 1001


def test_a_reader_of_partial_results_misses_and_repeats_nothing(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 40, shard_texts=4)
    seen: list[int] = []
    cursor = Cursor()
    for no in (7, 2, 9, 0, 1, 3, 8, 4, 6, 5):  # shards finish in any order
        finish(db, took(db, job, no))
        rows, cursor = verdicts.page(db, jobs.get(db, job.public_id), cursor, limit=3)
        seen += [row["seq"] for row in rows]
    while True:
        rows, cursor = verdicts.page(db, jobs.get(db, job.public_id), cursor, limit=3)
        if not rows:
            break
        seen += [row["seq"] for row in rows]
    assert sorted(seen) == list(range(40))
    assert len(seen) == 40


@pytest.mark.parametrize(
    ("judgement", "words"),
    [
        (SAFE, "Safe, no category; probability safe 0.902, controversial 0.078, unsafe 0.020; judged by m@0123456789ab."),
        (
            Judgement(Severity.CONTROVERSIAL, Category.PII | Category.JAILBREAK, refusal=True, served_by=ServedBy.CACHE),
            "Controversial in PII, Jailbreak; the response is a refusal; judged by m@0123456789ab earlier (cached).",
        ),
        (
            Judgement(Severity.UNSAFE, Category.SELF_HARM, refusal=False, served_by=ServedBy.DUPLICATE),
            "Unsafe in Suicide & Self-Harm; the response is no refusal; judged by m@0123456789ab on the same text in this job.",
        ),
        (Judgement(Severity.SAFE, served_by=ServedBy.RULE_EMPTY), "Safe: the text is empty, so there was nothing to judge."),
        (failure("unparsed", served_by=ServedBy.MODEL, raw="hm"), "No verdict: the model's answer is not in its own grammar."),
        (failure("too_long", "9 tokens"), "No verdict: the text is longer than may be judged (9 tokens)."),
        (failure("engine_failed", "it raises ValueError"), "No verdict: the engine failed on this text (it raises ValueError)."),
        (failure("abandoned"), "No verdict: its shard failed too often."),
        (
            Judgement(
                Severity.UNSAFE,
                Category.PII,
                evidence={"windows": [[0, 9, "safe", []], [5, 20, "unsafe", ["PII"]]], "decided": [5, 20], "left_out": [[20, 30]]},
            ),
            "Unsafe in PII; decided by characters 5 to 20, one of 2 windows; left out on request: characters 20 to 30; judged by m@0123456789ab.",  # noqa: E501
        ),
        (
            Judgement(
                Severity.SAFE, evidence={"windows": [[0, 9, "safe", []]], "decided": [0, 9], "turns_left_out": 4, "context_cut": 7}
            ),
            "Safe, no category; decided by characters 0 to 9; left out as too long: the oldest 4 turns; left out as too long: the first 7 characters of the turn before; judged by m@0123456789ab.",  # noqa: E501
        ),
        (failure("invalid_conversation"), "No verdict: the messages cannot be judged as a conversation."),
    ],
)
def test_every_kind_of_verdict_has_its_words(db: Database, keyring: Keyring, judgement: Judgement, words: str) -> None:
    job = submit(db, keyring, 1)
    finish(db, took(db, job, 0), judgement)
    (row,) = verdicts.export(db, job)
    assert row["rationale"] == words
    assert row["severity"] == judgement.severity.label
    assert row["served_by"] == judgement.served_by.label


def test_the_categories_of_the_view_are_those_of_the_code(db: Database) -> None:
    from guardfleet.verdict import category_names

    for bits in (*(1 << i for i in range(9)), 0, 511):
        with db.begin() as connection:
            names = connection.exec_driver_sql(f"select guardfleet_categories({bits}::smallint)").scalar_one()
        assert names == category_names(Category(bits))


def test_cancelling_drops_what_waits_and_lets_what_runs_finish(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    held = took(db, job, 1)
    jobs.cancel(db, job.id)
    jobs.cancel(db, job.id)
    assert jobs.get(db, job.public_id).state is JobState.CANCELLING
    assert shards.states(db, job.id) == {ShardState.CANCELLED: 2, ShardState.LEASED: 1}
    assert jobs.settle_cancelled(db) == 0
    assert finish(db, held)
    assert jobs.settle_cancelled(db) == 1
    done = jobs.get(db, job.public_id)
    assert (done.state, done.done) == (JobState.CANCELLED, 4)
    assert scalar(db, "select string_agg(kind, ',') from outbox") == "batch.cancelled"


@pytest.mark.parametrize("back", ["release", "fail", "rescue", "postpone"])
def test_a_shard_handed_back_to_a_cancelling_job_is_dropped(db: Database, keyring: Keyring, back: str) -> None:
    job = submit(db, keyring, 4)
    held = took(db, job, 0, lease_s=-1)
    jobs.cancel(db, job.id)
    {
        "release": lambda: shards.release(db, held),
        "fail": lambda: shards.fail(db, held, error="x", delay_s=0),
        "rescue": lambda: shards.rescue(db),
        "postpone": lambda: shards.postpone(db, held, delay_s=0),
    }[back]()
    assert shards.states(db, job.id) == {ShardState.CANCELLED: 1}
    jobs.settle_cancelled(db)
    assert jobs.get(db, job.public_id).state is JobState.CANCELLED


def test_a_given_up_intake_leaves_no_job_that_counts(db: Database, keyring: Keyring) -> None:
    settings = load_settings(shard_texts=1)
    with pytest.raises(KeyboardInterrupt), Intake(db, keyring, settings, NewJob("x", fingerprint=b"f")) as intake:  # noqa: PT012
        intake.add_all((i, PayloadRow(f"{i}", "x")) for i in range(40))
        raise KeyboardInterrupt
    assert jobs.find(db, b"f") is None
    assert scalar(db, "select count(*) from shard") == scalar(db, "select count(*) from shard_payload") == 0
    with pytest.raises(RejectedError, match="given up"):
        intake.seal()


def test_a_job_without_texts_is_complete_at_once(db: Database, keyring: Keyring) -> None:
    assert submit(db, keyring, 0).state is JobState.COMPLETED


def test_nothing_of_a_job_is_rung_before_it_is_sealed(db: Database, keyring: Keyring) -> None:
    intake = Intake(db, keyring, load_settings(shard_texts=1), NewJob("x"))
    intake.add_all((i, PayloadRow(f"{i}", "x")) for i in range(40))
    assert doorbells.due(db, BULK, limit=100) == []
    intake.seal()
    assert len(doorbells.due(db, BULK, limit=100)) == 40


def test_lost_doorbells_are_rung_again_after_a_while(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    rung = doorbells.due(db, BULK, limit=2)
    doorbells.mark_rung(db, rung)
    assert (doorbells.outstanding(db, BULK), [b.shard_no for b in doorbells.due(db, BULK, limit=9)]) == (2, [2])
    assert doorbells.forget_lost(db, BULK, older_than_s=60) == 0
    assert doorbells.forget_lost(db, BULK, older_than_s=0) == 2
    assert [(b.shard_no, b.publish_no) for b in doorbells.due(db, BULK, limit=9)] == [(0, 2), (1, 2), (2, 1)]
    assert job.total == 10


def test_a_worker_stopped_in_the_middle_of_a_claim_holds_up_nobody_else(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring)
    rung = doorbells.due(db, BULK, limit=9)
    with db.begin() as stopped:
        stopped.exec_driver_sql("set local idle_in_transaction_session_timeout = 0")
        stopped.exec_driver_sql("update shard set state = 1, token = token + 1 where shard_no = 0")
        doorbells.mark_rung(db, rung)
        assert doorbells.outstanding(db, BULK) == 2
        assert doorbells.forget_lost(db, BULK, older_than_s=0) == 2
        assert shards.rescue(db) == []
        assert take(db, job, 1) is not None


def test_purging_destroys_texts_and_key_and_keeps_verdicts(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 3)
    finish(db, took(db, job, 0))
    assert retention.purge(db, older_than_hours=1) == 0
    assert retention.purge(db, older_than_hours=-1) == 1
    assert scalar(db, "select count(*) from shard_payload") == 0
    assert scalar(db, "select count(*) from job where data_key is null and purged_at is not null") == 1
    assert len(list(verdicts.export(db, job))) == 3


def test_the_cache_knows_a_text_only_for_its_tenant_model_and_time(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 1)
    mine, other = keyring.digest(1, "text 0"), keyring.digest(2, "text 0")
    model_id = verdicts.register_model(db, MODEL)
    shards.finish(db, took(db, job, 0), [Row("id0", SAFE, mine)], model_id=model_id)
    found = verdicts.known(db, [mine, other], model_id=model_id, max_age_hours=1)
    assert set(found) == {mine}
    assert found[mine].served_by is ServedBy.CACHE
    assert verdicts.known(db, [mine], model_id=model_id + 1, max_age_hours=1) == {}
    assert verdicts.known(db, [mine], model_id=model_id, max_age_hours=0) == {}
    with db.begin() as connection:
        connection.exec_driver_sql("update verdict set done_at = now() - interval '2 hours'")
    assert verdicts.known(db, [mine], model_id=model_id, max_age_hours=1) == {}


def test_a_foreign_tenant_sees_no_job(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 1)
    with pytest.raises(NotFoundError):
        jobs.get(db, job.public_id, tenant_id=2)
    with pytest.raises(NotFoundError):
        jobs.parse_label("job_nonsense")


def test_keys_are_stored_as_digests_and_found_by_them(db: Database, keyring: Keyring) -> None:
    key = keys.create(db, keyring, name="k", tenant="acme")
    caller = keys.authenticate(db, keyring, key)
    assert caller is not None
    assert caller.tenant_id != 1
    assert keys.authenticate(db, keyring, key + "x") is None
    assert key.encode() not in bytes(scalar(db, "select digest from api_key"))
    with db.begin() as connection:
        connection.exec_driver_sql("update api_key set revoked_at = now()")
    assert keys.authenticate(db, keyring, key) is None


def test_audit_rows_cannot_be_changed_or_deleted(db: Database, keyring: Keyring) -> None:
    submit(db, keyring, 1)
    for statement in ("update audit_event set actor = 'x'", "delete from audit_event", "truncate audit_event"):
        with pytest.raises(Exception, match="insert-only"), db.begin() as connection:
            connection.exec_driver_sql(statement)
    assert scalar(db, "select action from audit_event") == "job.create"


def test_an_event_reaches_only_endpoints_that_listen_to_it_and_to_its_job(db: Database, keyring: Keyring) -> None:
    quiet = submit(db, keyring, 0)
    loud = submit(db, keyring, 0, new=NewJob("x", callback_url="http://127.0.0.1/", callback_secret="whsec_" + "a" * 32))
    assert deliveries.relay(db) == 2
    assert deliveries.relay(db) == 0
    assert scalar(db, "select string_agg(job_id::text, ',') from delivery") == str(loud.id)
    assert deliveries.unsent(db, quiet.id) == 0
    assert deliveries.unsent(db, loud.id) == 1


def test_a_delivery_is_held_by_one_sender_and_recorded_by_the_last(db: Database, keyring: Keyring) -> None:
    submit(db, keyring, 0, new=NewJob("x", callback_url="http://127.0.0.1/", callback_secret="whsec_" + "a" * 32))
    deliveries.relay(db)
    (delivery_id,) = deliveries.due(db, limit=9, again_after_s=60)
    first = deliveries.claim(db, delivery_id, lease_s=-1)  # a sender that dies at once
    assert first is not None
    second = deliveries.claim(db, delivery_id, lease_s=60)
    assert second is not None
    assert deliveries.claim(db, delivery_id, lease_s=60) is None
    assert not deliveries.settle(db, first, deliveries.Outcome(200, 5), delivered=True)
    assert deliveries.defer(db, second, deliveries.Outcome(500, 5), delay_s=3600)
    assert deliveries.claim(db, delivery_id, lease_s=60) is None
    assert scalar(db, "select count(*) from attempt") == 2
    assert scalar(db, "select attempts from delivery") == 2


def test_a_broken_connection_is_a_retryable_error() -> None:
    from guardfleet.errors import RetryableError

    db = Database("postgresql://nobody:secret-word@127.0.0.1:1/x", pool_size=1)
    with pytest.raises(RetryableError) as caught:
        db.ping()
    assert "secret-word" not in str(caught.value)
    db.close()


def test_partitions_of_a_day_are_made_once_by_whoever_comes_first(db: Database, keyring: Keyring) -> None:
    threads = [threading.Thread(target=submit, args=(db, keyring, 2)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    today = dt.datetime.now(dt.UTC).date()
    assert scalar(db, f"select count(*) from verdict_{today:%Y%m%d}") == 0
    assert scalar(db, "select count(*) from job where state = 1") == 5
