"""The pool of connections: which of them it keeps, for how long, and when it tests one before lending it.

psycopg's own pool connects in the background, so that a caller whose server is down waits for the pool's timeout and never learns
why; SQLAlchemy's adds 130 ms to the start of each process and 13 MiB to its memory.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from guardfleet.errors import AwayError
from guardfleet.store.postgres.connection import Connection
from guardfleet.store.postgres.sqlstate import DATABASE, meaning_of

OVERFLOW = 5  # connections that may be lent beyond those that are kept
WAIT_S = 10.0  # for a connection that another caller holds
AGE_S = 1800.0  # a connection this old is replaced: the memory of its server process only grows
TEST_S = 5.0  # the longest that such a question waits: a statement that does nothing has no reason to take long
IDLE_S = 1.0  # a connection that was idle for longer is tested before it is lent


class Pool:
    """Connects in the caller's thread and lends the last used connection first. Thread-safe; make it after a fork, never before."""

    def __init__(self, connect: Callable[[], Connection], *, size: int) -> None:
        self._connect, self._size = connect, size
        self._room = threading.Semaphore(size + OVERFLOW)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._outdated_at = -math.inf  # connections made up to then are not lent again
        self._is_closed = False
        self._lent = 0

    @contextmanager
    def lend(self) -> Iterator[Connection]:
        """Lend a connection, outside any transaction. Raises AwayError if none is free in time, otherwise the driver's errors."""
        if not self._room.acquire(timeout=WAIT_S):
            raise AwayError(DATABASE, f"no connection of the pool became free within {WAIT_S:g} s")
        try:
            connection = self._idle_one() or self._connect()
            self._count(1)
            try:
                yield connection
            except psycopg.Error as error:
                if meaning_of(error).leaves:
                    self._leave(connection)
                raise
            finally:
                self._count(-1)
                self._take_back(connection)
        finally:
            self._room.release()

    def counts(self) -> tuple[int, int]:
        """Return how many connections are lent, and how many are kept idle."""
        with self._lock:
            return self._lent, len(self._idle)

    def close(self) -> None:
        """Close idle connections now and lent ones when they come back; safe to call twice."""
        with self._lock:
            idle, self._idle, self._is_closed = self._idle, [], True
        for connection in idle:
            connection.close()

    def _count(self, change: int) -> None:
        with self._lock:
            self._lent += change

    def _idle_one(self) -> Connection | None:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            return None
        if not self._is_current(connection):
            connection.close()
        elif _is_there(connection):
            return connection
        else:
            self._leave(connection)  # the older ones have probably gone the same way: no caller is to wait for each
        return None

    def _take_back(self, connection: Connection) -> None:
        connection.used_at = time.monotonic()
        if connection.is_idle and self._is_current(connection):
            with self._lock:
                if len(self._idle) < self._size and not self._is_closed:
                    self._idle.append(connection)
                    return
        connection.close()

    def _is_current(self, connection: Connection) -> bool:
        return connection.made_at > max(self._outdated_at, time.monotonic() - AGE_S)

    def _leave(self, connection: Connection) -> None:
        """Close it, and lend none again that was made up to now: they lead to the same server."""
        if connection.made_at > self._outdated_at:  # otherwise it was outdated already, and younger ones may be good
            self._outdated_at = time.monotonic()
        connection.close()


def _is_there(connection: Connection) -> bool:
    """Return whether the connection can be used.

    It is tested with a statement only if it was idle for more than IDLE_S or its socket is readable: a test each time would cost
    as much as the caller's statement.
    """
    if time.monotonic() - connection.used_at <= IDLE_S and not connection.has_something_to_say():
        return True
    connection.answer_s = TEST_S
    try:
        connection.execute("")
    except psycopg.Error:
        return False
    finally:
        del connection.answer_s  # back to the usual
    return True
