"""Every model that judged a job: until now, the job kept only the last one.

A column with a default: workers of the previous version leave it empty, and then the job names the last model as before.

Revision ID: 0012
Revises: 0011
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.execute("alter table job add column models int2[] not null default '{}'")


def downgrade() -> None:
    """Remove the column."""
    op.execute("alter table job drop column models")
