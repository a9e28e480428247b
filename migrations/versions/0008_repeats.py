"""What a repeated request must share with the first, now including its lines; and which of several equal requests proceeds.

A nullable column and one with a default: the API of the previous version knows neither, and compares as it did.

Revision ID: 0008
Revises: 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.execute("alter table repeat add column body bytea, add column token int8 not null default 0")


def downgrade() -> None:
    """Remove the columns."""
    op.execute("alter table repeat drop column body, drop column token")
