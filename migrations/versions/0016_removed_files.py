"""A state of its own for files whose content was removed too, so that leftover contents are found.

Files that were deleted before are checked once more: then contents that a crash left behind are removed.

Revision ID: 0016
Revises: 0015
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Index the files whose content may still exist."""
    op.execute("create index file_left on file (id) where state = 2")
