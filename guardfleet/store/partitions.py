"""Day partitions of the big tables: created with a day's first job, dropped when nothing of the day is kept."""

import datetime as dt

import psycopg

from guardfleet.store.postgres.database import Connection, Database

PARTITIONED = ("verdict", "shard_payload", "detection")  # new ones last: an older version makes only the first
PATIENCE_S = 1  # wait for readers of the table: the one dispatcher waits here and does nothing else meanwhile
LOCK_KEY = 0x7061_7274  # "part"


def ensure_day(connection: Connection, day: dt.date) -> None:
    """Create the day's partitions unless they exist. Creators take turns, since CREATE IF NOT EXISTS alone can collide."""
    if connection.scalar("select to_regclass(%(name)s) is not null", {"name": name_of(PARTITIONED[-1], day)}):
        return
    connection.execute("select pg_advisory_xact_lock(%(key)s)", {"key": LOCK_KEY})
    for table in PARTITIONED:
        connection.execute(f"create table if not exists {name_of(table, day)} partition of {table} {_bounds(day)}")


def existing(db: Database) -> list[tuple[str, dt.date]]:
    """Return the table and day of each partition, oldest first, including those that an interrupted drop left detached."""
    with db.begin() as connection:
        names = connection.scalars(
            """select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace
                 and relname ~ '^(verdict|detection|shard_payload)_[0-9]{8}$' order by right(relname, 8), relname"""
        )
        return [(name[:-9], dt.datetime.strptime(name[-8:], "%Y%m%d").replace(tzinfo=dt.UTC).date()) for name in names]


def drop(db: Database, table: str, day: dt.date) -> bool:
    """Drop one partition, unless it has rows of a job that needs them: then attach it again and return False.

    Returns False too if somebody reads the table for longer than PATIENCE_S.

    The partition is detached first, concurrently with readers and writers of other days: a plain drop would lock them out. From
    then on nobody can write into it, so the check under its lock sees all of its rows.
    """
    name = name_of(table, day)
    with db.session() as connection:
        attached = connection.execute(
            "select inhdetachpending from pg_inherits where inhrelid = to_regclass(%(name)s)", {"name": name}
        ).fetchone()
        if attached is not None:
            how = "finalize" if attached.inhdetachpending else "concurrently"
            connection.execute(f"set lock_timeout = '{PATIENCE_S}s'")
            try:
                connection.execute(f"alter table {table} detach partition {name} {how}")
            except psycopg.errors.LockNotAvailable:
                return False  # a long read is under way: a later call finishes the detach
            finally:
                connection.execute("reset lock_timeout")
    with db.begin() as connection:
        if connection.scalar("select to_regclass(%(name)s) is null", {"name": name}):
            return True
        connection.execute(f"lock table {name} in access exclusive mode")
        only = " where j.purged_at is null" if table == "shard_payload" else ""
        needed = connection.scalar(f"select exists (select from {name} x join job j on j.id = x.job_id{only})")
        if needed:
            connection.execute(f"alter table {table} attach partition {name} {_bounds(day)}")
        else:
            connection.execute(f"drop table {name}")
    return not needed


def _bounds(day: dt.date) -> str:
    return f"for values from ('{day.isoformat()}') to ('{(day + dt.timedelta(days=1)).isoformat()}')"


def name_of(table: str, day: dt.date) -> str:
    """Return the name of the table's partition of the day."""
    return f"{table}_{day:%Y%m%d}"
