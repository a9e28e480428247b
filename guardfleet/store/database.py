"""The connection to PostgreSQL: pool, timeouts, and the one place where the driver's errors become guardfleet's (`sqlstate`)."""

import math
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.types.uuid import UUIDBinaryDumper, UUIDDumper
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from uuid_utils import UUID

from guardfleet.errors import AwayError, GuardfleetError
from guardfleet.store.sqlstate import DATABASE, MEANINGS, UNREACHABLE, first_line, meaning_of, translated

# statement_timeout keeps a stuck query from holding a lease for ever. A process that is stopped inside a transaction keeps its row
# locks until the server ends its session: so long can it hold up others that want the same rows. Ours take milliseconds.
SERVER_OPTIONS = "-c statement_timeout=60000 -c lock_timeout=15000 -c idle_in_transaction_session_timeout=10000 -c timezone=UTC"
CONNECT_TIMEOUT_S = 5
ANSWER_S = 65.0  # a statement's own limit has passed by then
LOOK_S = 0.1  # for signals, while an answer is waited for
IDLE_S = 1.0  # a connection that rested for longer is asked whether it is still there
# In a FROM list: the statement's commit is not waited for until it is on disk. For what a crash of PostgreSQL may undo.
UNFLUSHED = "(select set_config('synchronous_commit', 'off', true)) unflushed"
T = TypeVar("T")
for _dumper in (UUIDDumper, UUIDBinaryDumper):  # of the quick UUIDs: the standard library's take five times as long to make
    psycopg.adapters.register_dumper(UUID, _dumper)


class Bounded(psycopg.Connection[Any]):
    """A connection on which no answer is waited for without end.

    The server ends what takes too long. Whoever stands between may acknowledge all and pass nothing on: then it is as good as dead.
    """

    def wait(self, gen: Any, interval: float = LOOK_S, timeout: float | None = None) -> Any:
        """As the driver's, which asks so for each step of each statement; raises its OperationalError."""
        return super().wait(gen, interval, ANSWER_S if timeout is None else timeout)


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
            hide_parameters=True,
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

        event.listen(self._engine, "do_connect", lambda dialect, record, args, kwargs: Bounded.connect(*args, **kwargs))
        event.listen(self._engine, "checkin", _note_use)
        event.listen(self._engine, "checkout", _check_idle)
        event.listen(self._engine, "handle_error", _leave)

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """One transaction: committed on leaving, rolled back on an exception. Raises AwayError and StatementError."""
        with _translating(), self._engine.begin() as connection, _leaving(connection):
            yield connection

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """One connection outside any transaction: every statement commits by itself. Raises as `begin`.

        For session locks, and for reads that are polled: BEGIN and COMMIT would be two more round trips for one.
        """
        with (
            _translating(),
            self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
            _leaving(connection),
        ):
            yield connection

    def ping(self) -> None:
        """Raise AwayError unless the server answers and takes writes."""
        with self.session() as connection:
            (is_read_only,) = fetch(connection, "select current_setting('transaction_read_only') = 'on'", {}, _first)
        if is_read_only:
            raise AwayError(DATABASE, f"{MEANINGS['25006'].says}.")

    def wrong(self) -> str | None:
        """What is wrong with the database, or None."""
        try:
            self.ping()
        except GuardfleetError as error:
            return str(error)
        return None

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
            raise DisconnectionError(first_line(error)) from None


def _has_something_to_say(raw: Any) -> bool:
    """Whether bytes, or the end, have come on a connection on which nothing was asked."""
    poll = select.poll()
    try:
        poll.register(raw.fileno(), select.POLLIN)
    except psycopg.Error:
        return True
    return bool(poll.poll(0))


@contextmanager
def _translating() -> Iterator[None]:
    """The cause is not kept: the driver's exception holds the values that were sent, and a traceback would print them."""
    try:
        yield
    except PoolTimeoutError:
        raise AwayError(DATABASE, "no connection of the pool was free in time") from None
    except DBAPIError as error:
        if isinstance(error.orig, psycopg.Error):
            raise translated(error.orig) from None
        raise AwayError(DATABASE, f"{UNREACHABLE.says}: {first_line(error.orig or error)}") from None
    except psycopg.Error as error:  # from what goes past SQLAlchemy
        raise translated(error) from None


@contextmanager
def _leaving(connection: Connection) -> Iterator[None]:
    """Drop the connection where an error past SQLAlchemy says that it is of no more use; `_leave` does it for the others."""
    try:
        yield
    except psycopg.Error as error:
        if meaning_of(error).leaves and not connection.invalidated:
            connection.invalidate()
        raise


def _leave(context: ExceptionContext) -> None:
    """With it SQLAlchemy drops all older connections of the pool: they lead to the same server."""
    error = context.original_exception
    if isinstance(error, psycopg.Error) and meaning_of(error).leaves:
        context.is_disconnect = True


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


def fetch_named(connection: Connection, statement: str, values: Mapping[str, Any], make: Callable[[dict[str, Any]], T]) -> list[T]:
    """As `fetch`, with each row's values by the names of their columns, in a dictionary that is `make`'s own."""

    def rows_of(cursor: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], T]:
        result = cursor.pgresult
        columns = [result.fname(i) or b"" for i in range(result.nfields)] if result else []
        # Interned, names are the very strings of `make`'s arguments: Python finds each at once, and else compares it with all.
        names = [sys.intern(column.decode()) for column in columns]
        return lambda row: make(dict(zip(names, row, strict=True)))

    raw: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    with raw.cursor(binary=True, row_factory=rows_of) as cursor:
        return cursor.execute(statement.encode(), values).fetchall()


def _first(row: Sequence[Any]) -> Any:
    return row[0]
