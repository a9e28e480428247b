"""One browser and one fleet for all tests that one process runs."""

import pathlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from guardfleet import Client
from guardfleet.domain.scopes import ROLES
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from tests.services.databases import Databases, database_on
from tests.services.fixtures import fleet_settings
from tests.services.fleet import fleet, until


@dataclass(frozen=True)
class Site:
    """A fleet with its console: demo model, dispatcher, API; and a key of each role, in the tenant `default`."""

    origin: str
    settings: Settings
    db: Database
    keyring: Keyring
    keys: dict[str, str]
    client: Client  # over HTTP, with the admin's key


@pytest.fixture(scope="package")
def browser() -> Iterator[object]:
    """Chromium. Its driver keeps an event loop running in this thread: closed before another folder's test needs one."""
    from tests.services.browsing import chromium

    with chromium() as found:
        yield found


@pytest.fixture(scope="package")
def site(
    browser: object, postgres: str, databases: Databases, rabbitmq: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A real fleet, for all tests of this process: each test makes jobs of its own, and counts on no other's absence."""
    folder: pathlib.Path = tmp_path_factory.mktemp("site")
    name = databases.take()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = fleet_settings(database_on(postgres, name), rabbitmq, folder, engine="model", api_port=port)
    db, keyring = Database(settings.required("database_url"), pool_size=2), Keyring.of(settings)
    made = {role: keys.create(db, keyring, name=role, scopes=scopes) for role, scopes in ROLES.items()}
    with fleet(settings, folder, ["api"], ["dispatcher"], ["worker"]) as (_, _, worker):
        until(lambda: _listens(port), what="the API")
        worker.until_says("worker_ready")
        origin = f"http://127.0.0.1:{port}"
        with Client(origin, made["admin"]) as client:
            yield Site(origin, settings, db, keyring, made, client)
    db.close()
    databases.give_back(name)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
