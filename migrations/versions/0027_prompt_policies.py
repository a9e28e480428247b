"""Policies for prompts: versions of texts that detectors judge by, and which models take one.

Revision ID: 0027
Revises: 0026
"""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

TABLES = """
alter table model add column prompt_policy text;
create table prompt_policy (
  id bigint generated always as identity primary key,
  tenant_id bigint not null references tenant (id),
  name text not null,
  version integer not null,
  text text not null,
  digest bytea not null,
  created_at timestamptz not null default now(),
  unique (tenant_id, name, version)
);
"""


def upgrade() -> None:
    """Add the column and the table."""
    op.execute(TABLES)
