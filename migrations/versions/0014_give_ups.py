"""How often a dispatcher has begun to give a shard up: one that cannot be given up as it should ends as error rows all the same.

Revision ID: 0014
Revises: 0013
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.execute("alter table shard add column give_ups smallint not null default 0")


def downgrade() -> None:
    """Remove it."""
    op.execute("alter table shard drop column give_ups")
