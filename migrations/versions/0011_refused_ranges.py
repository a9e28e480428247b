"""Ranges of lines that were refused together: a CSV row with an unclosed quote may cover very many lines.

A nullable column: the previous version refuses line by line.

Revision ID: 0011
Revises: 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.execute("alter table rejection add column last_line int8")


def downgrade() -> None:
    """Remove the column."""
    op.execute("alter table rejection drop column last_line")
