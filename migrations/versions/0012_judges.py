"""Every model that judged a job, where the job had kept the last one only.

With a default: workers of the version before leave it empty, and then the last one is named as before.

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
    """Remove it."""
    op.execute("alter table job drop column models")
