"""The number of lines of an uploaded file, for its key's quota; the most attempts per second to a webhook endpoint.

Nullable columns: the API of the previous version counts no lines, and its senders ignore the limit.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    op.execute("alter table file add column lines int8")
    op.execute("alter table endpoint add column most_per_s real, add column paced_until timestamptz")


def downgrade() -> None:
    """Remove the columns."""
    op.execute("alter table endpoint drop column most_per_s, drop column paced_until")
    op.execute("alter table file drop column lines")
