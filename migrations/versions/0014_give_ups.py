"""How often a dispatcher has begun to end a poisoned shard: after too many tries, it is settled without being decrypted.

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
    """Remove the column."""
    op.execute("alter table shard drop column give_ups")
