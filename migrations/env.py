"""Alembic's entry: runs on the connection that `guardfleet.store.migrate` hands over, one transaction a migration.

The view is made behind the last one: its words are the code's, and a migration's are what they were.
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
