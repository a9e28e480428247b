"""How the uploaded file of a job is read, where it is no file of batch lines.

Revision ID: 0031
Revises: 0030
"""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; it is null in every job that exists."""
    op.execute("alter table job add column reading jsonb")
