"""The view `verdicts` shows what makes no verdict as an error, names each job, and says what its columns are.

Nothing is done here: `env.py` makes the view anew, in the words of the version that migrates, behind the last migration.

Revision ID: 0015
Revises: 0014
"""

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Ask for the view."""
