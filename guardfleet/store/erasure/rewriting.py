"""Rewriting the tables of an erasure, so that no page of theirs keeps the bytes of the rows that it changed or deleted.

PostgreSQL never overwrites a row: a changed one leaves its old version in the page, and VACUUM frees that without clearing it.
VACUUM FULL writes the table and its indexes anew and removes the old files, while nobody can read or write the table.
"""

from collections.abc import Callable

from guardfleet.errors import RetryableError
from guardfleet.store.erasure.receipts import Receipt
from guardfleet.store.partitions import name_of
from guardfleet.store.postgres.database import Connection, Database, translating, unhurried

# Tables without partitions, and the count of a receipt that says whether rows of theirs were changed.
SHARED = {"rejection": "refusals", "repeat": "requests", "first_opinion": "provisional", "file": "files", "job": "jobs"}
STATISTICS = "pg_statistic"
OLDER = """select exists (
             select from (select backend_xmin as xmin from pg_stat_activity where pid <> pg_backend_pid()
                          union all select xmin from pg_replication_slots union all select transaction from pg_prepared_xacts) o,
                         (select xmin as done from erasure where id = %(id)s) e
             where o.xmin is not null and age(o.xmin) >= age(e.done))"""


def tables_of(db: Database, receipt: Receipt) -> list[str]:
    """Return the tables that hold old versions of the erasure's rows."""
    partitions = [name_of(table, day) for day in sorted(receipt.days) for table in ("verdict", "shard_payload")]
    with db.session() as connection:
        there = connection.scalars(
            "select x from unnest(%(names)s::text[]) x where to_regclass(x) is not null", {"names": partitions}
        )
    if not there:
        return []
    return (
        sorted(there)
        + [STATISTICS]
        + [table for table, count in SHARED.items() if getattr(receipt, count) or (table == "rejection" and receipt.jobs)]
    )


def rewrite(db: Database, receipt: Receipt, on_table: Callable[[str], None] = lambda name: None) -> list[str]:
    """Rewrite the tables one by one, each locked until it is done; return their names. Repeat it after a kill.

    Raises RetryableError while a transaction, a standby or a prepared one may still read the old rows: VACUUM would keep them.
    """
    tables = tables_of(db, receipt)
    with translating(), unhurried(db) as connection:
        connection.execute("set statement_timeout = 0")  # locks are waited for as briefly as ever
        for table in tables:
            _require_unread(connection, receipt)
            on_table(table)
            connection.execute(f"vacuum (full) {table}")
        if tables:
            connection.execute("checkpoint")  # which removes the old files
    return tables


def _require_unread(connection: Connection, receipt: Receipt) -> None:
    if connection.scalar(OLDER, {"id": receipt.id}):
        raise RetryableError(
            "a transaction, a replication slot or a prepared transaction from before the erasure is still open, and PostgreSQL "
            "would keep the old rows for it: try again once it has ended (pg_stat_activity.backend_xmin says which)."
        )
