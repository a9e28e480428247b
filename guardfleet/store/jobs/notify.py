"""Word of interactive jobs that are done, as PostgreSQL hands it on with the commit. Nothing rests on it: it only saves asking."""

from collections.abc import Iterator

from guardfleet.store.postgres.database import Database

DONE_CHANNEL = "guardfleet_done"


def done(db: Database, *, pause_s: float) -> Iterator[int | None]:
    """Ids of interactive jobs that have come on; None when there was none for `pause_s`. Raises RetryableError."""
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
            connection.close()  # the pool is not to hand out a connection that listens
