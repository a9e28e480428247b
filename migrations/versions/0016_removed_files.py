"""A file whose content is removed too has a state of its own, so that a content that is left over is found.

Files that were deleted before are looked at once more: what a crash has left of some is removed then.

Revision ID: 0016
Revises: 0015
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Index what is left to remove."""
    op.execute("create index file_left on file (id) where state = 2")
