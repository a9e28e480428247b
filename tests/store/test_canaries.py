"""PostgreSQL's error about a row can quote the row: none of that is in a log of the API, a worker or a dispatcher."""

import json
import logging
import pathlib
from collections.abc import Callable, Iterator

import httpx2
import psycopg
import pytest

from guardfleet.broker.celery_app import Publisher, make_app
from guardfleet.jobs.intake import Intake
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import keys
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY, fleet_settings
from tests.services.moderating import moderator
from tests.services.patience import patience
from tests.services.poison import DAMAGES, damaged, exhausted_shard
from tests.services.served import served
from tests.services.stored import finish, new_job, took
from worker.dispatch.dispatcher import Dispatcher
from worker.moderation.tasks import Moderator

__all__ = ["moderator"]
TEXT, ROW_ID, KEY, VALUE, AGAIN = (f"canary-{name}-9e1f" for name in ("text", "id", "key", "value", "again"))
METADATA = {KEY: VALUE}
ROW = {"id": ROW_ID, "text": TEXT, "metadata": METADATA}
Told = Callable[[], str]


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[Told]:
    """All that was written and logged since the last look, but by the client that asks here."""
    with caplog.at_level(logging.DEBUG):
        for client in ("httpx2", "httpcore2"):
            caplog.set_level(logging.WARNING, client)

        def look() -> str:
            out, err = capfd.readouterr()
            said = out + err + caplog.text
            caplog.clear()
            return said

        yield look


def assert_silent(said: str) -> None:
    assert [canary for canary in (TEXT, ROW_ID, KEY, VALUE, AGAIN) if canary in said] == []


def brought(db: Database, keyring: Keyring) -> JobView:
    new = new_job(name="x", metadata=METADATA, callback_url="http://127.0.0.1:9/", callback_secret="whsec_" + "a" * 32)
    with Intake(db, keyring, load_settings(webhook_allow_networks=("127.0.0.0/8",)), new) as intake:
        intake.add_all((i + 1, PayloadRow(f"{ROW_ID}{i}", f"{TEXT} {i}", METADATA)) for i in range(20))
        return intake.seal()


@pytest.mark.parametrize("how", DAMAGES)
def test_the_server_does_say_what_it_refuses(db: Database, keyring: Keyring, how: str) -> None:
    """Else the tests below show nothing."""
    with damaged(db, "job", how), psycopg.connect(**db.keywords) as raw, pytest.raises(psycopg.Error) as refused:
        raw.execute(
            "insert into job (public_id, tenant_id, day, lane, name, key_id, metadata) "
            "values (gen_random_uuid(), 1, current_date, 0, 'x', 'k', %s)",
            [json.dumps(METADATA)],
        )
    assert (how == "renamed") or VALUE in f"{refused.value} {refused.value.diag.message_detail}"


@pytest.mark.parametrize("how", DAMAGES)
def test_the_api_says_nothing_of_what_it_was_sent(
    db: Database, database_url: str, keyring: Keyring, tmp_path: pathlib.Path, told: Told, how: str
) -> None:
    settings = load_settings(database_url=database_url, secret_key=SECRET_KEY, data_dir=tmp_path, moderation_timeout_s=0.1)
    headers = {"authorization": f"Bearer {keys.create(db, keyring, name='k')}"}
    lines = {"content-type": "application/jsonl", "idempotency-key": AGAIN}
    with served(settings) as url, httpx2.Client(base_url=url, headers=headers, timeout=patience(60)) as client:
        seen = set()
        for table in ("job", "shard", "shard_payload", "repeat", "audit_event"):
            with damaged(db, table, how):
                asked = {"metadata": json.dumps(METADATA), "name": table}
                seen.add(client.post("/v1/batches", params=asked, content=json.dumps(ROW), headers=lines).status_code)
                seen.add(client.post("/v1/moderate", json={"text": TEXT}).status_code)
    assert seen & {500}
    said = told()
    assert "request_failed" in said
    assert_silent(said)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("table", ["verdict", "shard_done", "job", "shard", "shard_payload"])
def test_a_worker_says_nothing_of_a_shard(
    db: Database, keyring: Keyring, moderator: Moderator, told: Told, table: str, how: str
) -> None:
    job = brought(db, keyring)
    with damaged(db, table, how):
        moderator(job.id, 0)
    said = told()
    assert "shard_failed" in said or table == "shard_payload"
    assert_silent(said)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_dispatcher_says_nothing_of_a_job(
    db: Database, database_url: str, redis_broker: str, keyring: Keyring, tmp_path: pathlib.Path, told: Told, how: str
) -> None:
    settings = fleet_settings(database_url, redis_broker, tmp_path)
    publisher = Publisher(make_app(settings, "test"), settings)
    for table in ("outbox", "delivery", "shard", "job", "verdict", "shard_payload", "shard_done"):
        ended, exhausted = brought(db, keyring), brought(db, keyring)
        finish(db, took(db, ended, 0))
        exhausted_shard(db, exhausted)
        with damaged(db, table, how):
            Dispatcher(db, publisher, keyring, settings).tick()
    publisher.close()
    said = told()
    assert "step_raised" in said
    assert_silent(said)
