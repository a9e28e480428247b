"""Day partitions of the big tables: made when a day's first job is, dropped when nothing of the day is kept."""

import datetime as dt

from sqlalchemy import Connection, text

PARTITIONED = ("verdict", "shard_payload")
LOCK_KEY = 0x7061_7274  # "part"


def ensure_day(connection: Connection, day: dt.date) -> None:
    """Make the day's partitions unless they are there. Creators take turns, since CREATE IF NOT EXISTS alone can collide."""
    if connection.execute(text("select to_regclass(:name) is not null"), {"name": _name(PARTITIONED[-1], day)}).scalar():
        return
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
    for table in PARTITIONED:
        connection.exec_driver_sql(
            f"create table if not exists {_name(table, day)} partition of {table} "
            f"for values from ('{day.isoformat()}') to ('{(day + dt.timedelta(days=1)).isoformat()}')"
        )


def _name(table: str, day: dt.date) -> str:
    return f"{table}_{day:%Y%m%d}"
