"""Signed webhooks to a real receiver: delivered, retried, exhausted, never sent where they must not go."""

import json
import pathlib
from contextlib import closing
from typing import Any

import httpx2
import openai
import pytest
from standardwebhooks import Webhook

from guardfleet.client.direct import DirectClient
from guardfleet.client.job import SubmitOptions
from guardfleet.domain.options import JobOptions
from guardfleet.errors import RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.security.signing import new_secret
from guardfleet.settings import Settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import fleet_settings, with_broker
from tests.services.fleet import fleet, until
from tests.services.outcome import finished
from tests.services.receiver import Receiver, receiver
from tests.services.served import served

__all__ = ["receiver"]
WORKER, DISPATCHER, WEBHOOKS = ("worker",), ("dispatcher",), ("worker", "--webhooks")


def attempts(db: Database) -> list[tuple[int | None, str | None]]:
    with db.begin() as connection:
        return [tuple(row) for row in connection.execute("select status, error from attempt order by id").fetchall()]  # type: ignore[misc]


def delivery_state(db: Database) -> int | None:
    with db.begin() as connection:
        return connection.scalar("select state from delivery")


def run(
    settings: Settings, folder: pathlib.Path, url: str, secret: str, final: int, workers: Settings | None = None
) -> tuple[DirectClient, dict[str, Any]]:
    producer = DirectClient.connect(settings)
    with fleet(workers or settings, folder, DISPATCHER, WORKER, WEBHOOKS):
        job = finished(
            producer,
            producer.submit(["a", "b [[unsafe]]"], JobOptions(callback_url=url), SubmitOptions(callback_secret=secret)).job,
        )
        until(lambda: delivery_state(producer.db) == final, what=f"a delivery in state {final}")
    return producer, {"label": job.label, "public_id": job.public_id}


def test_a_finished_job_is_told_once_signed_and_without_its_texts(
    settings: Settings, tmp_path: pathlib.Path, receiver: Receiver
) -> None:
    secret = new_secret()
    producer, job = run(settings, tmp_path, receiver.url, secret, 2)
    ((headers, body),) = receiver.got
    event = Webhook(secret).verify(body, headers)
    assert event["type"] == "batch.completed"
    assert event["data"]["job"] == job["label"]
    assert event["data"]["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    assert event["data"]["severities"] == {"safe": 1, "controversial": 0, "unsafe": 1, "error": 0}
    assert event["data"]["is_demo"] is True
    assert b"[[unsafe]]" not in body
    assert len(body) < 20_000
    client = openai.OpenAI(api_key="x", webhook_secret=secret)
    unwrapped = client.webhooks.unwrap(body, headers)
    assert unwrapped.type == "batch.completed"
    assert attempts(producer.db) == [(204, None)]
    client.close()
    producer.db.close()


def test_a_failing_receiver_is_tried_again_with_the_same_event_and_a_new_signature(
    settings: Settings, tmp_path: pathlib.Path, receiver: Receiver
) -> None:
    secret = new_secret()
    receiver.answer = lambda n: ((500, 302, 200)[n - 1], {"location": "http://127.0.0.1:1/"})
    producer, _ = run(settings, tmp_path, receiver.url, secret, 2)
    assert [status for status, _ in attempts(producer.db)] == [500, 302, 200]  # a redirect is a failure, and is not followed
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    for headers, body in receiver.got:
        assert json.loads(body) == Webhook(secret).verify(body, headers)
    producer.db.close()


@with_broker("redis")
def test_a_receiver_that_never_recovers_is_given_up(settings: Settings, tmp_path: pathlib.Path, receiver: Receiver) -> None:
    receiver.answer = lambda n: (503, {})
    producer, _ = run(settings, tmp_path, receiver.url, new_secret(), 3)
    assert [status for status, _ in attempts(producer.db)] == [503] * 4
    producer.db.close()


@with_broker("redis")
def test_gone_ends_the_delivery_and_disables_the_endpoint(settings: Settings, tmp_path: pathlib.Path, receiver: Receiver) -> None:
    receiver.answer = lambda n: (410, {})
    producer, _ = run(settings, tmp_path, receiver.url, new_secret(), 3)
    assert attempts(producer.db) == [(410, None)]
    with producer.db.begin() as connection:
        assert connection.scalar("select enabled from endpoint") is False
    producer.db.close()


@with_broker("redis")
def test_a_private_address_is_refused_unless_the_operator_allows_it(
    settings: Settings, tmp_path: pathlib.Path, receiver: Receiver
) -> None:
    closed = settings.but(webhook_allow_networks=())
    url = receiver.url.replace("127.0.0.1", "localhost")
    with closing(DirectClient.connect(closed).db) as db, pytest.raises(RejectedError, match="private or reserved"):
        DirectClient(db, Keyring.of(closed), closed).submit(["a"], JobOptions(callback_url=url))
    producer, _ = run(settings, tmp_path, url, new_secret(), 3, workers=closed)  # it leads elsewhere by the time it is called
    assert receiver.got == []
    assert all(status is None and "private or reserved" in str(error) for status, error in attempts(producer.db))
    producer.db.close()


@with_broker("redis")
def test_a_secret_is_never_in_the_database_or_a_log(settings: Settings, tmp_path: pathlib.Path, receiver: Receiver) -> None:
    secret = new_secret()
    producer, _ = run(settings.but(log_level="debug"), tmp_path, receiver.url, secret, 2)
    with producer.db.begin() as connection:
        assert secret.encode() not in bytes(connection.scalar("select secret from endpoint"))
    assert not any(secret in log.read_text() for log in tmp_path.glob("*.log"))
    producer.db.close()


def test_an_endpoint_is_tested_and_hears_of_batches_as_the_sdk_has_it(
    database_url: str, rabbitmq: str, db: Database, keyring: Keyring, tmp_path: pathlib.Path, receiver: Receiver
) -> None:
    settings = fleet_settings(database_url, rabbitmq, tmp_path)
    key = keys.create(db, keyring, name="k")
    with (
        fleet(settings, tmp_path, DISPATCHER, WORKER, WEBHOOKS),
        served(settings) as url,
        openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0, _strict_response_validation=True) as client,
    ):
        made = client.webhooks.create(name="mine", url=receiver.url, event_types=["batch.completed"])
        tested = client.webhooks.test(made.id, event_type="batch.completed")
        assert (tested.success, tested.status_code) == (True, 204)
        receiver.answer = lambda n: (503, {})
        with pytest.raises(openai.BadRequestError, match="the receiver answered 503"):
            client.webhooks.test(made.id, event_type="batch.failed")
        receiver.answer = lambda n: (204, {})
        headers = {"authorization": f"Bearer {key}", "content-type": "application/jsonl"}
        batch = httpx2.post(f"{url}/v1/batches", content=b'{"id": "1", "text": "x"}', headers=headers).json()["id"]
        until(lambda: len(receiver.got) == 3, what="the event of the batch")
        got, body = receiver.got[2]
        event = client.webhooks.unwrap(body, got, secret=made.signing_secret)
        assert (event.type, event.data.id) == ("batch.completed", batch)
        sent = f"{url}/v1/webhook_endpoints/{made.id}/deliveries"
        until(lambda: httpx2.get(sent, headers=headers).json()["data"][0]["status"] == "delivered", what="the delivery recorded")
        again = httpx2.get(sent, headers=headers).json()["data"]
        assert [each["status"] for each in again] == ["delivered", "exhausted", "delivered"]
        assert httpx2.post(f"{sent}/{again[0]['id']}/retry", headers=headers).json()["deliveries"] == 1
        until(lambda: len(receiver.got) == 4, what="the event once more")
        assert receiver.got[3][0]["webhook-id"] == got["webhook-id"]
