"""Rewriting the tables of an erasure, so that no page of theirs keeps the bytes of the rows that it changed or deleted.

PostgreSQL never overwrites a row: a changed one leaves its old version in the page, and VACUUM frees that without clearing it.
VACUUM FULL writes the table and its indexes anew and removes the old files, while nobody can read or write the table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from guardfleet.errors import RetryableError
from guardfleet.store.erasure import receipts
from guardfleet.store.erasure.receipts import Receipt
from guardfleet.store.partitions import PARTITIONED, name_of
from guardfleet.store.postgres.database import Connection, Database, translating, unhurried

# Tables without partitions, and the counts of a receipt that say whether rows of theirs were changed.
SHARED = {
    "rejection": ("refusals", "jobs"), "repeat": ("requests",), "first_opinion": ("provisional",), "file": ("files",),
    "label": ("beside", "jobs"), "sample_text": ("beside", "jobs"), "job": ("jobs",),
}  # fmt: skip
STATISTICS = "pg_statistic"
# For a transaction in another database PostgreSQL keeps no rows of this one; for a standby's, which names none, it does.
OLDER = """select exists (
             select from (select backend_xmin as xmin from pg_stat_activity
                          where pid <> pg_backend_pid() and coalesce(datname, current_database()) = current_database()
                          union all select xmin from pg_replication_slots
                          union all select transaction from pg_prepared_xacts where database = current_database()) o,
                         (select xmin as done from erasure where id = any(%(ids)s::int8[])) e
             where o.xmin is not null and age(o.xmin) >= age(e.done))"""


@dataclass
class Rewritten:
    """What was rewritten; tables that this role may not rewrite; and whether a checkpoint removed the old files."""

    tables: list[str] = field(default_factory=list)
    denied: list[str] = field(default_factory=list)
    has_checkpoint: bool = True

    @property
    def is_whole(self) -> bool:
        """Whether all is rewritten but PostgreSQL's own table, which belongs to its superuser."""
        return set(self.denied) <= {STATISTICS}


def tables_of(db: Database, made: Sequence[Receipt]) -> list[str]:
    """Return the tables that hold old versions of the erasures' rows."""
    days = sorted({day for one in made for day in one.days})
    shared = [table for table, counts in SHARED.items() if any(getattr(one, count) for one in made for count in counts)]
    with db.session() as connection:
        there = connection.scalars(
            "select x from unnest(%(names)s::text[]) x where to_regclass(x) is not null order by 1",
            {"names": [name_of(table, day) for day in days for table in PARTITIONED]},
        )
    return [*there, STATISTICS, *shared] if there or shared else []


def rewrite(
    db: Database, tenant_id: int, made: Sequence[Receipt], on_table: Callable[[str], None] = lambda name: None
) -> Rewritten:
    """Rewrite the tables of these erasures one by one, each locked until it is done, and record it. Repeat it after a kill.

    Raises RetryableError while a transaction, a standby or a prepared one may still read the old rows: VACUUM would keep them.
    """
    done = Rewritten()
    tables = tables_of(db, made)
    with translating(), unhurried(db) as connection:
        connection.execute("set statement_timeout = 0")  # locks are waited for as briefly as ever
        for table in tables:
            _require_unread(connection, made)
            on_table(table)
            (done.tables if _vacuum(connection, table) else done.denied).append(table)
        if done.tables:
            done.has_checkpoint = _checkpoint(connection)
    if made and done.is_whole:
        receipts.rewritten(db, tenant_id, made)
    return done


def _vacuum(connection: Connection, table: str) -> bool:
    """Rewrite the table; return False if the role may not, which PostgreSQL says in a warning alone."""
    file = f"select pg_relation_filenode('{table}')"
    before = connection.scalar(file)
    connection.execute(f"vacuum (full) {table}")
    return bool(connection.scalar(file) != before)


def _checkpoint(connection: Connection) -> bool:
    """Have the old files removed now; a role that may not leaves it to the next checkpoint, within minutes."""
    try:
        connection.execute("checkpoint")
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def _require_unread(connection: Connection, made: Sequence[Receipt]) -> None:
    if connection.scalar(OLDER, {"ids": [one.id for one in made]}):
        raise RetryableError(
            "a transaction, a replication slot or a prepared transaction from before the erasure is still open, and PostgreSQL "
            "would keep the old rows for it: try again once it has ended (pg_stat_activity.backend_xmin says which)."
        )
