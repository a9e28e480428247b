"""The database: its transactions, and the one place where the driver's errors become guardfleet's (`sqlstate`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psycopg

from guardfleet.errors import GuardfleetError
from guardfleet.store.postgres.connection import Connection, connect, copy_rows, keywords
from guardfleet.store.postgres.pool import Pool
from guardfleet.store.postgres.sqlstate import translated

PORT = "5432"  # libpq's default

# In a FROM list, lets the statement commit without waiting for the disk: for changes that a crash of PostgreSQL may undo.
UNFLUSHED = "(select set_config('synchronous_commit', 'off', true)) unflushed"


class Database:
    """A pool of connections. Thread-safe; make it after a fork, never before. Raises ConfigurationError for an unusable URL."""

    def __init__(self, url: str, *, application: str = "guardfleet", pool_size: int = 5) -> None:
        self.keywords, self.application = keywords(url), application
        self.models: dict[int, Any] = {}  # rows of `model` read so far; they never change
        self.model_ids: dict[Any, int] = {}  # the other way round, of models that this process has registered
        self.outcomes: dict[int, Any] = {}  # likewise of `policy_outcome`, by policy
        self._pool = Pool(partial(connect, self.keywords, application=application), size=pool_size)

    @property
    def address(self) -> str:
        """Host and port of the server: what a log may say of its URL."""
        return f"{self.keywords.get('host') or 'localhost'}:{self.keywords.get('port') or PORT}"

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Run one transaction: commit on leaving, roll back on an exception. Raises AwayError and StatementError."""
        with self.session() as connection, connection.transaction():
            yield connection

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """Lend a connection outside any transaction: every statement commits by itself. Raises as `begin`.

        For session locks and polled reads: BEGIN and COMMIT would add two round trips to one.
        """
        with translating(), self._pool.lend() as connection:
            yield connection

    def ping(self) -> None:
        """Raise AwayError unless the server answers and takes writes. The connection to one that does not is given up."""
        with self.session() as connection:
            if connection.scalar("select current_setting('transaction_read_only') = 'on'"):
                raise psycopg.errors.ReadOnlySqlTransaction("it takes no writes")

    def connections(self) -> tuple[int, int]:
        """Return how many connections of the pool are in use, and how many are idle."""
        return self._pool.counts()

    def wrong(self) -> str | None:
        """Return what is wrong with the database, or None."""
        try:
            self.ping()
        except GuardfleetError as error:
            return str(error)
        return None

    def close(self) -> None:
        """Close idle connections; safe to call twice."""
        self._pool.close()


@contextmanager
def unhurried(db: Database) -> Iterator[Connection]:
    """Lend a connection of its own that waits for answers for minutes, if the statement's own limit allows it."""
    with connect(db.keywords, application=db.application) as connection:
        connection.answer_s = None
        yield connection


@contextmanager
def translating() -> Iterator[None]:
    """Raise the driver's errors as guardfleet's.

    The cause is not kept: the driver's exception holds the values that were sent, and a traceback would print them.
    """
    try:
        yield
    except psycopg.Error as error:
        raise translated(error) from None


__all__ = ["UNFLUSHED", "Connection", "Database", "copy_rows", "translating", "unhurried"]
