"""Second detectors for texts that a detector is unsure of: which ones a job names, and how many texts went on to them.

Revision ID: 0032
Revises: 0031
"""

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

COLUMNS = """
alter table job add column detector_cascades text[];
alter table detected add column escalated integer not null default 0, add column sampled integer not null default 0,
  add column agreed integer not null default 0;
"""


def upgrade() -> None:
    """Add the columns."""
    op.execute(COLUMNS)
