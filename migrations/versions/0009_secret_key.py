"""Which secret key the installation was made with, so that a process with another is refused before it takes anything.

The table is filled by the first process that has a key: SQL alone cannot know it. Old processes go on without looking.

Revision ID: 0009
Revises: 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table, and which key an endpoint's secrets and an API key's digest are under; null: unknown, an older one."""
    op.execute("""create table installation_key (
        key_id text primary key, is_current boolean not null, pinned_at timestamptz not null default now())""")
    op.execute("create unique index installation_key_current on installation_key (is_current) where is_current")
    op.execute("alter table endpoint add column key_id text")
    op.execute("alter table api_key add column key_id text")


def downgrade() -> None:
    """Remove them."""
    op.execute("alter table api_key drop column key_id")
    op.execute("alter table endpoint drop column key_id")
    op.execute("drop table installation_key")
