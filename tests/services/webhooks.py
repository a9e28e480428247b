"""Endpoints, their deliveries, and a sender in this process."""

import pathlib
import time
from collections.abc import Iterator

import pytest

from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings, load_settings
from guardfleet.store.events import deliveries, endpoints
from guardfleet.store.events.endpoints import Endpoint
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.poison import change
from worker.webhooks.delivery import Deliverer, make_pool

KINDS = ("batch.completed",)
LIMIT_S = 1.0


@pytest.fixture
def settings(tmp_path: pathlib.Path) -> Settings:
    return load_settings(
        secret_key=SECRET_KEY, data_dir=tmp_path, webhook_timeout_s=LIMIT_S, webhook_allow_networks=("127.0.0.0/8",),
        webhook_schedule_s=(0.0, 7.0, 7.0),
    )  # fmt: skip


@pytest.fixture
def deliver(db: Database, keyring: Keyring, settings: Settings) -> Iterator[Deliverer]:
    pool = make_pool(settings.webhooks)
    yield Deliverer(db, keyring, settings.webhooks, settings.tuning, pool, now=time.time, random=lambda: 0.5, pause=lambda s: None)
    pool.close()


def endpoint(db: Database, keyring: Keyring, url: str, kinds: tuple[str, ...] = KINDS) -> tuple[Endpoint, str]:
    return endpoints.create(db, keyring, tenant_id=1, name="r", url=url, kinds=kinds)


def send(db: Database, deliver: Deliverer, made: Endpoint) -> deliveries.Outcome:
    """One attempt, as the dispatcher and a worker would make it."""
    delivery = endpoints.send_test(db, made.public_id, tenant_id=1, kind="batch.completed")
    deliver(delivery)
    outcome = deliveries.outcome(db, delivery)
    assert outcome is not None
    return outcome


def happened(db: Database, made: Endpoint, n: int = 1) -> list[int]:
    """Deliveries of real events, which are retried, unlike tests."""
    with db.begin() as connection:
        return list(
            connection.scalars(
                "insert into delivery (event_id, endpoint_id, job_id, kind, occurred_at) "
                f"select 'evt_' || gen_random_uuid(), id, 0, 'batch.completed', now() from endpoint, generate_series(1, {n}) "
                f"where public_id = '{made.public_id}' returning id"
            )
        )


def due(db: Database, limit: int = 64) -> list[int]:
    return deliveries.due(db, limit=limit, again_after_s=30, at_once=4, failing=8)


def failed(db: Database, made: Endpoint, n: int = 1) -> list[int]:
    """Deliveries that were given up, with an attempt each."""
    found = happened(db, made, n)
    change(db, f"update delivery set state = 3, attempts = 1 where id in ({', '.join(map(str, found))})")
    change(db, "insert into attempt (delivery_id, attempt_no, status, latency_ms, error)"
               f" select id, 1, 503, 12, 'answered 503' from delivery where id in ({', '.join(map(str, found))})")  # fmt: skip
    return found
