"""Which device each worker has, and how much of its memory is in use.

Revision ID: 0030
Revises: 0029
"""

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; workers of the version before leave them empty."""
    op.execute("alter table worker add column device text, add column used_bytes bigint, add column total_bytes bigint")
