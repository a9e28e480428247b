"""Migrations: forward only, one process at a time, from the wheel or from a checkout.

Every process checks the schema; only one that migrates loads Alembic, which would take a quarter of the others' start-up time.
"""

import pathlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg

from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.errors import ConfigurationError, RetryableError
from guardfleet.store import audit
from guardfleet.store.postgres.connection import Connection, connect
from guardfleet.store.postgres.database import Database

LOCK_KEY = 0x6775_6172_64  # "guard"
PACKAGED = pathlib.Path(__file__).parents[1] / "_migrations"
CHECKOUT = pathlib.Path(__file__).parents[2] / "migrations"


def upgrade(db: Database, *, timeout_s: float = 120.0) -> str:
    """Bring the schema to the newest revision and return it. Safe to call from several processes: they take turns."""
    from alembic import command  # noqa: PLC0415 - see above
    from alembic.config import Config  # noqa: PLC0415
    from sqlalchemy import create_engine  # noqa: PLC0415
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415
    from sqlalchemy.pool import NullPool  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_folder()).replace("%", "%%"))
    engine = create_engine("postgresql+psycopg://", creator=partial(connect_for_migrations, db), poolclass=NullPool)
    with db.session() as lock:
        _take_lock(lock, timeout_s)
        try:
            with engine.begin() as connection:
                config.attributes["connection"] = connection
                driver: Any = connection.connection.driver_connection  # in the same transaction
                before = _revision(driver)
                command.upgrade(config, "head")
                if before != head():
                    audit.record(driver, DEFAULT_TENANT, "schema.upgrade", head())
        except DBAPIError as error:
            raise (error.orig or error) from None  # the driver's own error, which the session translates
        finally:
            lock.execute("select pg_advisory_unlock(%(key)s)", {"key": LOCK_KEY})
    return head()


def connect_for_migrations(db: Database) -> Connection:
    """Return a connection for SQLAlchemy: it begins transactions, and a statement may take its time, or be several in a string."""
    connection = connect(db.keywords, application=db.application)
    connection.answer_s = None
    connection.execute("set statement_timeout = 0")  # a large table is rewritten for hours; locks are waited for as briefly as ever
    connection.autocommit, connection.cursor_factory = False, psycopg.Cursor
    return connection


def current(db: Database) -> str | None:
    """Return the revision of the database; None for an empty one."""
    with db.begin() as connection:
        return _revision(connection)


def _revision(connection: Any) -> str | None:
    if connection.scalar("select to_regclass('alembic_version')::text") is None:
        return None
    found: str | None = connection.scalar("select version_num from alembic_version")
    return found


def head() -> str:
    """Return the revision this code needs: the highest number that a file of a migration begins with."""
    revision = max((file.stem.split("_")[0] for file in (_folder() / "versions").glob("[0-9]*.py")), default=None)
    if revision is None:
        raise ConfigurationError("the migrations are missing from this installation; reinstall guardfleet.")
    return revision


def require_head(db: Database) -> None:
    """Raise ConfigurationError, with the fix, unless the schema is the one this code needs, or newer and still compatible.

    So processes of two versions can run side by side while a fleet is upgraded: docs/upgrading.md.
    """
    found, needed = current(db), head()
    if found == needed:
        return
    if found is None or found < needed:
        raise ConfigurationError(
            f"the database is at migration {found}, this guardfleet needs {needed}: run `guardfleet db upgrade`."
        )
    with db.begin() as connection:
        oldest: str = connection.scalar("select oldest from schema_support")
    if needed < oldest:
        raise ConfigurationError(
            f"the database is at migration {found}, and this guardfleet ({needed}) is too old for it: install a newer version."
        )


def wait_for_head(
    db: Database, *, or_migration: bool = False, patience_s: float = 60.0, pause: Callable[[float], object] = time.sleep
) -> None:
    """Do the same at the start of a process, waiting up to `patience_s` for PostgreSQL and, with `or_migration`, the migration.

    Processes start in any order, and one that gave up would only be started again.
    """
    deadline = time.monotonic() + patience_s
    waited = (RetryableError, ConfigurationError) if or_migration else RetryableError
    while True:
        try:
            require_head(db)
        except waited:
            if time.monotonic() > deadline:
                raise
            pause(0.5)
        else:
            return


def _take_lock(lock: Connection, timeout_s: float) -> None:
    # Polled: a session that blocks in pg_advisory_lock deadlocks with CREATE INDEX CONCURRENTLY in the holder.
    deadline = time.monotonic() + timeout_s
    while not lock.scalar("select pg_try_advisory_lock(%(key)s)", {"key": LOCK_KEY}):
        if time.monotonic() > deadline:
            raise RetryableError(f"another process has been migrating for {timeout_s:.0f} s: wait for it and try again.")
        time.sleep(0.1)


def _folder() -> pathlib.Path:
    return PACKAGED if PACKAGED.is_dir() else CHECKOUT
