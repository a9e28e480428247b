"""Jobs whose text is deleted in the commit of its verdict.

A column with a default: workers of the previous version leave such a text to the dispatcher, which deletes it at its next purge.

Revision ID: 0013
Revises: 0012
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.execute("alter table job add column keeps_nothing bool not null default false")


def downgrade() -> None:
    """Remove the column."""
    op.execute("alter table job drop column keeps_nothing")
