"""Lists of terms, patterns and whole texts that are looked for before the model is asked, and how often their entries were hit.

Revision ID: 0021
Revises: 0020
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

TABLES = """
create table term_list (
  id bigint generated always as identity primary key,
  tenant_id bigint not null references tenant (id),
  name text not null,
  version integer not null,
  entries bytea not null,
  n integer not null,
  digest bytea not null,
  is_active boolean not null default false,
  created_at timestamptz not null default now(),
  constraint term_list_tenant_id_name_version_key unique (tenant_id, name, version)
);
create unique index term_list_active on term_list (tenant_id, name) where is_active;
create table list_hit (
  job_id bigint not null,
  first_seq integer not null,
  list text not null,
  texts jsonb not null,
  primary key (job_id, first_seq, list)
);
"""


def upgrade() -> None:
    """Add the tables."""
    op.execute(TABLES)
