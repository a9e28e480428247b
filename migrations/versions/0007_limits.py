"""Lines of an uploaded file, for its key's quota; how often a webhook endpoint may be sent to.

Columns that may be null: the API of the version before counts no lines, its senders keep to no pace.

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
    """Remove them."""
    op.execute("alter table endpoint drop column most_per_s, drop column paced_until")
    op.execute("alter table file drop column lines")
