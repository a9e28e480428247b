"""Policies, which of them a tenant applies, and what they decided of each text.

A shard's decisions are one row, a byte a text: the number of the rule that decided. Rows of the previous version's workers have none;
`guardfleet redecide` adds them.

Revision ID: 0020
Revises: 0019
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

TABLES = """
create table policy (
  id bigint generated always as identity primary key,
  tenant_id bigint not null references tenant (id),
  name text not null,
  version integer not null,
  shadow boolean not null,
  document jsonb not null,
  digest bytea not null,
  created_at timestamptz not null default now(),
  activated_at timestamptz,
  constraint policy_tenant_id_name_version_key unique (tenant_id, name, version)
);
create table policy_outcome (
  policy_id bigint not null references policy (id) on delete cascade,
  outcome smallint not null,
  action smallint not null,
  rule text,
  reason text,
  labels text[] not null default '{}',
  primary key (policy_id, outcome)
);
create table decision (
  job_id bigint not null,
  first_seq integer not null,
  policy_id bigint not null,
  n integer not null,
  outcomes bytea not null,
  allowed integer not null,
  flagged integer not null,
  reviewed integer not null,
  blocked integer not null,
  shadow boolean not null,
  decided_at timestamptz not null default now(),
  primary key (job_id, first_seq, policy_id),
  constraint decision_check check (octet_length(outcomes) = n and allowed + flagged + reviewed + blocked = n)
);
alter table tenant add column policy_id bigint, add column shadow_policy_id bigint;
"""


def upgrade() -> None:
    """Add the tables and the columns."""
    op.execute(TABLES)
