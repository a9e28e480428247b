"""Erasures with their receipts, legal holds, and how many texts of a shard and a job were erased.

`shard.erased` tells a claim that read the shard's texts before an erasure from one that read them after; `job.holds` keeps retention
away from a job. Both are 0 in rows of the previous version, which erases nothing.

Revision ID: 0023
Revises: 0022
"""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

TABLES = """
create table erasure (
  id bigint generated always as identity primary key,
  public_id uuid not null default gen_random_uuid(),
  tenant_id bigint not null references tenant (id),
  created_at timestamptz not null default now(),
  actor_kind text not null,
  actor text not null,
  kinds text[] not null,
  digests bytea[] not null,
  key_id text not null,
  job_id bigint,
  reached_job bigint not null default 0,
  waiting bigint[] not null default '{}',
  input_files uuid[] not null default '{}',
  days date[] not null default '{}',
  texts integer not null default 0,
  verdicts integer not null default 0,
  blobs integer not null default 0,
  provisional integer not null default 0,
  refusals integer not null default 0,
  beside integer not null default 0,
  requests integer not null default 0,
  files integer not null default 0,
  jobs integer not null default 0,
  held integer not null default 0,
  unread integer not null default 0,
  finished_at timestamptz,
  constraint erasure_public_id_key unique (public_id)
);
create index erasure_tenant on erasure (tenant_id, id desc);
create table legal_hold (
  id bigint generated always as identity primary key,
  public_id uuid not null default gen_random_uuid(),
  tenant_id bigint not null references tenant (id),
  created_at timestamptz not null default now(),
  actor_kind text not null,
  actor text not null,
  kind text not null,
  target bytea,
  key_id text,
  job_id bigint,
  reason text not null,
  released_at timestamptz,
  constraint legal_hold_public_id_key unique (public_id)
);
create index legal_hold_tenant on legal_hold (tenant_id, id desc);
create table held_job (
  hold_id bigint not null references legal_hold (id),
  job_id bigint not null,
  primary key (hold_id, job_id)
);
alter table shard add column erased integer not null default 0;
alter table job add column erased integer not null default 0, add column holds integer not null default 0;
create index job_held on job (input_file_id) where holds > 0;
"""


def upgrade() -> None:
    """Add the tables and the columns."""
    op.execute(TABLES)
