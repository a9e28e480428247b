"""The pool of connections: which of them are kept, for how long, and when one is believed to be there.

psycopg's own pool connects in the background, so that a caller whose server is away waits for the pool's timeout and is never told
why; SQLAlchemy's takes 130 ms of the start of each process and 13 MiB of its memory.
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

OVERFLOW = 5  # connections that may be lent beside those that are kept
WAIT_S = 10.0  # for a connection that another caller has
AGE_S = 1800.0  # a connection this old is made anew: a server's memory of it only grows
IDLE_S = 1.0  # a connection that rested for longer is asked whether it is still there


class Pool:
    """Connections made in the caller's thread, the last used lent first. Thread-safe; make it after a fork, never before."""

    def __init__(self, connect: Callable[[], Connection], *, size: int) -> None:
        self._connect, self._size = connect, size
        self._room = threading.Semaphore(size + OVERFLOW)
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._outdated_at = -math.inf  # connections made until then are lent no more

    @contextmanager
    def lend(self) -> Iterator[Connection]:
        """Lend a connection, outside any transaction. Raises AwayError where none is free in time, else the driver's errors."""
        if not self._room.acquire(timeout=WAIT_S):
            raise AwayError(DATABASE, "no connection of the pool was free in time")
        try:
            connection = self._idle_one() or self._connect()
            try:
                yield connection
            except psycopg.Error as error:
                if meaning_of(error).leaves:
                    self._leave(connection)
                raise
            finally:
                self._take_back(connection)
        finally:
            self._room.release()

    def close(self) -> None:
        """Close idle connections, and each that is lent when it comes back; safe to call twice."""
        with self._lock:
            idle, self._idle = self._idle, []
            self._outdated_at = time.monotonic()
        for connection in idle:
            connection.close()

    def _idle_one(self) -> Connection | None:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None or (self._is_current(connection) and _is_there(connection)):
            return connection
        connection.close()
        return None

    def _take_back(self, connection: Connection) -> None:
        connection.used_at = time.monotonic()
        if connection.is_idle and self._is_current(connection):
            with self._lock:
                if len(self._idle) < self._size:
                    self._idle.append(connection)
                    return
        connection.close()

    def _is_current(self, connection: Connection) -> bool:
        return connection.made_at > max(self._outdated_at, time.monotonic() - AGE_S)

    def _leave(self, connection: Connection) -> None:
        """Drop it and all that were made before: they lead to the same server."""
        if connection.made_at > self._outdated_at:  # else it was left before, and younger ones may be good
            self._outdated_at = time.monotonic()
        connection.close()


def _is_there(connection: Connection) -> bool:
    """Return whether the connection can be used: one that was not used for a while is asked, else it is seen whether it was closed.

    Asking each time would cost as much as what is then asked.
    """
    if time.monotonic() - connection.used_at <= IDLE_S and not connection.has_something_to_say():
        return True
    try:
        connection.execute("")
    except psycopg.Error:
        return False
    return True
