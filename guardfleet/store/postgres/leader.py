"""Leadership of the dispatcher: a session-level try-lock. A dispatcher's work is idempotent, so two leaders would be harmless."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from guardfleet.store.postgres.database import Connection, Database

LOCK_KEY = 0x6469_7370  # "disp"
SILENT_S = 20  # PostgreSQL frees the lock of a process that is frozen, or whose host vanished, after so long


class Leadership:
    """A candidate. The lock that it wins lasts as long as its connection: PostgreSQL frees it when the process dies."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def try_lead(self) -> bool:
        """Return whether this process leads now, taking the lock if it is free. Repeated calls take it only once."""
        held: bool = self._connection.scalar(
            """select case when exists (
                 select from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and granted
                   and ((classid::bigint << 32) | objid::bigint) = %(key)s)
               then true else pg_try_advisory_lock(%(key)s) end""",
            {"key": LOCK_KEY},
        )
        return held


def is_led(db: Database) -> bool:
    """Return whether some dispatcher leads now."""
    with db.session() as connection:
        led: bool = connection.scalar(
            """select exists (select from pg_locks where locktype = 'advisory' and granted
                 and database = (select oid from pg_database where datname = current_database())
                 and ((classid::bigint << 32) | objid::bigint) = %(key)s)""",
            {"key": LOCK_KEY},
        )
        return led


@contextmanager
def campaign(db: Database) -> Iterator[Leadership]:
    """Lend a candidate on a connection of its own, outside any transaction. The lock ends with it.

    One that does not call `try_lead` for SILENT_S has lost its connection: its next call raises AwayError.
    """
    with db.session() as connection:
        try:
            connection.execute(f"set idle_session_timeout = '{SILENT_S}s'")
            yield Leadership(connection)
        finally:
            with suppress(psycopg.Error):
                connection.execute("select pg_advisory_unlock_all()")  # at once; the server notices a closed connection later
            connection.close()  # in the pool it could keep the lock, and no standby could lead
