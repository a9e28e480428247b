"""What jobs of millions of texts need: intakes that can be resumed, priorities, pauses, pace; and which older code is compatible.

Columns with defaults, so that processes of the previous version continue; `schema_support` tells those that start meanwhile.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = """
alter table job
  add column priority smallint not null default 0,
  add column strict boolean not null default false,
  add column reuse boolean not null default true,
  add column paused_at timestamptz,
  add column intake_token bigint not null default 0,
  add column intake_line bigint not null default 0,
  add column intake_lease_until timestamptz not null default now(),
  add column started_at timestamptz,
  add column progressed_at timestamptz,
  add column pace real not null default 0;

create index shard_tried on shard (job_id, shard_no) where state = 0 and (claims > 0 or failures > 0);

create table schema_support (
  only_row boolean not null default true constraint schema_support_pkey primary key,
  oldest text not null,
  constraint schema_support_only_row_check check (only_row)
);
insert into schema_support (oldest) values ('0003');
"""


def upgrade() -> None:
    """Add the columns and the table."""
    op.execute(TABLES)
