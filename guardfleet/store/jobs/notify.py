"""Notifications of finished interactive jobs, sent by PostgreSQL with the commit. Optional: they only save polling."""

from collections.abc import Iterator

from guardfleet.store.postgres.database import Database

DONE_CHANNEL = "guardfleet_done"


def done(db: Database, *, pause_s: float) -> Iterator[int | None]:
    """Yield ids of interactive jobs that have new verdicts; None if there was none for `pause_s`. Raises RetryableError."""
    with db.session() as connection:
        connection.execute(f"listen {DONE_CHANNEL}")
        try:
            while True:
                heard = False
                for notice in connection.notifies(timeout=pause_s, stop_after=1):
                    heard = True
                    yield int(notice.payload)
                if not heard:
                    yield None
        finally:
            connection.close()  # the pool must not lend a connection that listens
