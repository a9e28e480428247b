"""When a webhook endpoint first accepted a delivery: until then it gets one at a time.

A nullable column: senders of the previous version leave it null, and the endpoint stays slow until one of this version delivers.

Revision ID: 0006
Revises: 0005
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.execute("alter table endpoint add column answered_at timestamptz")


def downgrade() -> None:
    """Remove the column."""
    op.execute("alter table endpoint drop column answered_at")
