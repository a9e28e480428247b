"""What the planner remembers of a table: ANALYZE keeps frequent ids and metadata in `pg_statistic`, long after their rows."""

from guardfleet.store.erasure.receipts import Receipt
from guardfleet.store.partitions import name_of
from guardfleet.store.postgres.database import Database, translating, unhurried

PARENT = "verdict"
# Other tables whose values may be remembered, and the counts of a receipt that say whether rows of theirs were changed.
SHARED = {
    "rejection": ("refusals", "jobs"), "repeat": ("requests",), "file": ("files",), "job": ("jobs",),
    "sample_text": ("beside", "jobs"),
}  # fmt: skip
OF_PARENT = f"select exists (select from pg_stats where schemaname = 'public' and tablename = '{PARENT}')"
DELETE = """do $$ begin
  if current_setting('is_superuser')::bool then delete from pg_statistic where starelid = '{table}'::regclass; end if; end $$"""


def forget(db: Database, receipt: Receipt) -> None:
    """Take the statistics of the tables anew that an erasure changed; safe to repeat.

    ANALYZE leaves those of an empty table as they are: these are deleted, which only a superuser may.
    """
    tables = [name_of(table, day) for day in sorted(receipt.days) for table in (PARENT, "detection")]
    tables += [table for table, counts in SHARED.items() if any(getattr(receipt, count) for count in counts)]
    if not tables:
        return
    with translating(), unhurried(db) as connection:
        tables = connection.scalars("select x from unnest(%(names)s::text[]) x where to_regclass(x) is not null", {"names": tables})
        if tables and connection.scalar(OF_PARENT):
            tables.append(PARENT)  # only where somebody has analysed it: autovacuum does not
        for table in tables:
            with connection.transaction():
                connection.execute("set local statement_timeout = 0")  # of this transaction alone: a pooler may stand in between
                connection.execute(f"analyze {table}")
            if not connection.scalar(f"select exists (select from {table})"):
                connection.execute(DELETE.format(table=table))
