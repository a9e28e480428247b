"""What a PostgreSQL server says of itself: its version and its clock."""

import datetime as dt
import time
from collections.abc import Callable

from guardfleet.errors import ConfigurationError
from guardfleet.store.postgres.database import Database

OLDEST = 15  # the tests run on 15 and newer
MAJOR = 10_000  # of libpq's number: 150004 is 15.4


def require_supported(db: Database) -> str:
    """Return the server's version. Raises ConfigurationError for one that is too old."""
    with db.session() as connection:
        number = connection.info.server_version
    version = f"{number // MAJOR}.{number % MAJOR}"
    if number // MAJOR < OLDEST:
        raise ConfigurationError(f"PostgreSQL {version} is too old; guardfleet needs {OLDEST} or newer.")
    return version


def now(db: Database) -> dt.datetime:
    """Return the server's time: what is stored is compared with it, never with the clock of a host."""
    with db.session() as connection:
        found: dt.datetime = connection.scalar("select clock_timestamp()")
    return found


def skew_s(db: Database, *, clock: Callable[[], float] = time.time) -> float:
    """Return by how many seconds `clock` is ahead of the server's; the way there and back counts as half of it each."""
    with db.session() as connection:
        before = clock()
        there: float = connection.scalar("select extract(epoch from clock_timestamp())::float8")
        return (before + clock()) / 2 - there
