"""The secret key that the installation was created with, so that a process with another key is refused before it takes work.

The first process that has a key fills the table: SQL alone cannot know it. Old processes continue without checking.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table, and the key of an endpoint's secrets and of an API key's digest; null: unknown, from an older version."""
    op.execute("""create table installation_key (
        key_id text primary key, is_current boolean not null, pinned_at timestamptz not null default now())""")
    op.execute("create unique index installation_key_current on installation_key (is_current) where is_current")
    op.execute("alter table endpoint add column key_id text")
    op.execute("alter table api_key add column key_id text")


def downgrade() -> None:
    """Remove the table and the columns."""
    op.execute("alter table api_key drop column key_id")
    op.execute("alter table endpoint drop column key_id")
    op.execute("drop table installation_key")
