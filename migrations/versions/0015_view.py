"""The view `verdicts` shows unreadable rows as errors, names each job, and describes its columns.

Does nothing itself: `env.py` recreates the view after the last migration, in the words of the version that migrates.

Revision ID: 0015
Revises: 0014
"""

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Do nothing: `env.py` recreates the view."""
