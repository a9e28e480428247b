"""The connection to PostgreSQL: pool, timeouts, and the one translation of driver errors."""

import math
import select
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from guardfleet.errors import RetryableError

# statement_timeout keeps a stuck query from holding a lease for ever. A process that is stopped inside a transaction keeps its row
# locks until the server ends its session: so long can it hold up others that want the same rows. Ours take milliseconds.
SERVER_OPTIONS = "-c statement_timeout=60000 -c lock_timeout=15000 -c idle_in_transaction_session_timeout=10000 -c timezone=UTC"
CONNECT_TIMEOUT_S = 5
IDLE_S = 1.0  # a connection that rested for longer is asked whether it is still there
# In a FROM list: the statement's commit is not waited for until it is on disk. For what a crash of PostgreSQL may undo.
UNFLUSHED = "(select set_config('synchronous_commit', 'off', true)) unflushed"
T = TypeVar("T")


class Database:
    """A pool of connections. Thread-safe; make it after a fork, never before."""

    def __init__(self, url: str, *, application: str = "guardfleet", pool_size: int = 5) -> None:
        self.url = url
        self.models: dict[int, Any] = {}  # rows of `model` that were read; they never change
        self._engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=5,
            pool_recycle=1800,
            pool_use_lifo=True,
            pool_timeout=10,
            connect_args={
                "options": SERVER_OPTIONS,
                "application_name": application,
                "connect_timeout": CONNECT_TIMEOUT_S,
                "keepalives_idle": 15,
                "keepalives_interval": 5,
                "keepalives_count": 3,
                "tcp_user_timeout": 30_000,
            },
        )

        event.listen(self._engine, "checkin", _note_use)
        event.listen(self._engine, "checkout", _check_idle)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction: committed on leaving, rolled back on an exception. Raises RetryableError when PostgreSQL is away."""
        with _translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """One connection outside any transaction: every statement commits by itself.

        For session locks, and for reads that are polled: BEGIN and COMMIT would be two more round trips for one.
        """
        with _translated(), self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection

    def ping(self) -> None:
        """Raise RetryableError unless the server answers."""
        with self.begin() as connection:
            connection.exec_driver_sql("select 1")

    def close(self) -> None:
        """Close idle connections; safe to call twice."""
        self._engine.dispose()


def _note_use(_: Any, record: Any) -> None:
    record.info["used_at"] = time.monotonic()


def _check_idle(raw: Any, record: Any, _: Any) -> None:
    """Make sure of a connection: ask it where it was not used for a while, else only see whether the server has closed it.

    Asking each time would cost as much as what is then asked.
    """
    if time.monotonic() - record.info.get("used_at", math.inf) > IDLE_S or _has_something_to_say(raw):
        try:
            raw.execute("")
            raw.rollback()
        except psycopg.Error as error:
            raise DisconnectionError(str(error)) from error


def _has_something_to_say(raw: Any) -> bool:
    """Whether bytes, or the end, have come on a connection on which nothing was asked."""
    poll = select.poll()
    try:
        poll.register(raw.fileno(), select.POLLIN)
    except psycopg.Error:
        return True
    return bool(poll.poll(0))


@contextmanager
def _translated() -> Iterator[None]:
    """A server that does not answer is a RetryableError; anything else the driver says is a defect and stays what it is."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        raise RetryableError(f"PostgreSQL did not answer: {_first_line(error)}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise RetryableError(f"the connection to PostgreSQL broke: {_first_line(error)}") from error
        raise
    except psycopg.OperationalError as error:  # from a COPY, which goes past SQLAlchemy
        raise RetryableError(f"PostgreSQL did not answer: {_first_line(error)}") from error


def copy_rows(connection: Connection, table: str, columns: dict[str, str], rows: Iterable[Sequence[Any]]) -> None:
    """Binary COPY of `rows` into `table` inside the connection's transaction; `columns` maps names to PostgreSQL types.

    About 12 times as fast as Core inserts (208 k rows/s on 2 cores), and it joins the transaction like any statement.
    """
    raw: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    names = ", ".join(columns)
    with raw.cursor() as cursor, cursor.copy(f"copy {table} ({names}) from stdin (format binary)") as copy:
        copy.set_types(list(columns.values()))
        for row in rows:
            copy.write_row(row)


def fetch(connection: Connection, statement: str, values: Mapping[str, Any], make: Callable[[Sequence[Any]], T]) -> list[T]:
    """All rows of a query, each made of its values by `make`, straight from the driver in binary.

    Through SQLAlchemy a thousand wide rows take 15 ms of the processor, so 1 ms.
    """
    raw: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    with raw.cursor(binary=True, row_factory=lambda _: make) as cursor:
        return cursor.execute(statement.encode(), values).fetchall()


def _first_line(error: Exception) -> str:
    """The driver's message without the statement and its parameters, which may hold a caller's values."""
    cause = getattr(error, "orig", None) or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]
