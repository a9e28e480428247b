"""When the tables of an erasure were rewritten; null: old bytes of it may be in them, as after one by the previous version.

Revision ID: 0024
Revises: 0023
"""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.execute("alter table erasure add column rewritten_at timestamptz")
