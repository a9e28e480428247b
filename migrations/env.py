"""Alembic's entry point: runs on the connection that `guardfleet.store.migrate` passes in, one transaction per migration.

The view is recreated after the last migration: its words are those of the current code, while migrations never change.
"""

from alembic import context

from guardfleet.store.schema.jobs import Base
from guardfleet.store.schema.view import STATEMENTS

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
context.get_bind().exec_driver_sql(STATEMENTS)
