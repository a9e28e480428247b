"""Real servers: the tests use databases, virtual hosts and key spaces of their own, and leave the servers as they were."""

import os
import subprocess
from collections.abc import Iterator

import psycopg
import pytest
import redis
from kombu import Connection
from kombu.exceptions import OperationalError

from guardfleet.security.encryption import Keyring, new_secret_key
from guardfleet.settings import Settings, load_settings
from guardfleet.store import audit, migrate
from guardfleet.store.postgres.database import Database
from tests.conftest import missing
from tests.services.databases import Databases, database_on, unique

POSTGRES = os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
RABBITMQ = os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")
BESIDE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])  # the number of this process among those that run tests in parallel
REDIS = os.environ.get("TEST_REDIS_URL", "redis://127.0.0.1:6379") + f"/{15 - BESIDE}"
SECRET_KEY = new_secret_key()
# A test has six queues of three file descriptors each: after 50 tests RabbitMQ has used up its 1,024, and stops answering.
UNUSED_MS = 60_000


@pytest.fixture(scope="session")
def postgres() -> str:
    """The URL of a PostgreSQL whose databases the tests may make and drop."""
    try:
        psycopg.connect(POSTGRES, connect_timeout=3).close()
    except psycopg.OperationalError as error:
        missing(f"no PostgreSQL at {POSTGRES}: {error}")
    return POSTGRES


@pytest.fixture(scope="session")
def template_database(postgres: str) -> Iterator[str]:
    """A migrated database to clone (130 ms against a second for migrating)."""
    name = unique()
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(f"create database {name}")
        db = Database(database_on(postgres, name), pool_size=1)
        migrate.upgrade(db)
        db.close()
        yield name
        admin.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="session")
def databases(postgres: str, template_database: str) -> Iterator[Databases]:
    """Clones of the template."""
    made = Databases(postgres, template_database)
    yield made
    made.close()


@pytest.fixture
def database_url(postgres: str, databases: Databases) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = databases.take()
    yield database_on(postgres, name)
    databases.give_back(name)


@pytest.fixture
def empty_database_url(postgres: str) -> Iterator[str]:
    """A database without tables."""
    name = unique()
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(f"create database {name} template template0")
        yield database_on(postgres, name)
        admin.execute(f"drop database {name} with (force)")


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """A pool over the test's database, with nobody acting: who did in an earlier test of this process does not here."""
    audit._acting.set(None)
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def keyring() -> Keyring:
    """The tests' keys."""
    return Keyring(SECRET_KEY)


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[str]:
    """A virtual host of the session's own."""
    try:
        with Connection(RABBITMQ) as connection:
            connection.ensure_connection(max_retries=1, timeout=3)
    except (OperationalError, OSError) as error:
        missing(f"no RabbitMQ at {RABBITMQ}: {error}")
    name = unique()
    try:
        _rabbitmqctl("add_vhost", name)
        _rabbitmqctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        _rabbitmqctl("set_policy", "-p", name, "unused", ".*", f'{{"expires": {UNUSED_MS}}}', "--apply-to", "queues")
    except (OSError, subprocess.CalledProcessError) as error:
        missing(f"rabbitmqctl cannot make a virtual host: {error}")
    yield RABBITMQ.rsplit("/", 1)[0].rstrip("/") + f"/{name}"
    _rabbitmqctl("delete_vhost", name)


def _rabbitmqctl(*args: str) -> None:
    subprocess.run(["rabbitmqctl", "-q", *args], check=True, capture_output=True)


@pytest.fixture
def redis_broker() -> Iterator[str]:
    """A Redis database, one for each process of tests; the test's keys carry its namespace and are deleted after it."""
    client = redis.Redis.from_url(REDIS)
    try:
        client.ping()
    except redis.RedisError as error:
        missing(f"no Redis at {REDIS}: {error}")
    before = set(client.scan_iter("*"))
    yield REDIS
    fresh = [key for key in client.scan_iter("*") if key not in before and key.startswith(b"gftest_")]
    if fresh:
        client.delete(*fresh)
    client.close()


def with_broker(name: str) -> pytest.MarkDecorator:
    """For tests that do not depend on the broker: they run once."""
    return pytest.mark.parametrize("broker_url", [name], indirect=True)


@pytest.fixture(params=["rabbitmq", "redis"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """Each broker in turn."""
    return str(request.getfixturevalue("rabbitmq" if request.param == "rabbitmq" else "redis_broker"))


@pytest.fixture
def settings(database_url: str, broker_url: str, tmp_path: object) -> Settings:
    """Settings of a fleet over real servers, with the instant engine and short times."""
    return fleet_settings(database_url, broker_url, tmp_path)


def fleet_settings(database_url: str, broker_url: str, data_dir: object, **overrides: object) -> Settings:
    """Fast settings; overridable."""
    values: dict[str, object] = {
        "database_url": database_url,
        "broker_url": broker_url,
        "secret_key": SECRET_KEY,
        "namespace": unique(),
        "data_dir": data_dir,
        "engine": "instant",
        "lease_s": 3.0,
        "tick_s": 0.05,
        "republish_s": 1.0,
        "retry_base_s": 0.05,
        "retry_cap_s": 0.2,
        "webhook_allow_networks": ("127.0.0.0/8",),
        "webhook_schedule_s": (0.0, 0.05, 0.05, 0.05),
    }
    return load_settings(**{**values, **overrides})
