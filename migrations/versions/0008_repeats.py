"""What a repeated request has to have in common with the first: its lines too; and which of several goes on.

A column that may be null and one with a default: the API of the version before knows neither, and compares what it did.

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
    """Remove them."""
    op.execute("alter table repeat drop column body, drop column token")
