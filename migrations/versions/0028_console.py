"""Sessions of people who use the console, and what each prefers.

Revision ID: 0028
Revises: 0027
"""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

TABLES = """
create table console_session (
  id bigint generated always as identity primary key,
  digest bytea not null unique,
  tenant_id bigint not null references tenant (id),
  key_id bigint references api_key (id),
  who text not null,
  name text not null,
  scopes text[] not null default '{}',
  created_at timestamptz not null default now(),
  expires_at timestamptz not null
);
create index console_session_expires_at on console_session (expires_at);
create table console_preference (
  tenant_id bigint not null references tenant (id),
  who text not null,
  preferences jsonb not null default '{}',
  primary key (tenant_id, who)
);
"""


def upgrade() -> None:
    """Add the tables."""
    op.execute(TABLES)
