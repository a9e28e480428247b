"""Alembic's entry: runs on the connection that `guardfleet.store.migrate` hands over, one transaction a migration."""

from alembic import context

from guardfleet.store.schema import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
