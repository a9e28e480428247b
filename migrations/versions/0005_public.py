"""What the public API needs: files, keys with scopes, jobs that expire, managed webhook endpoints, repeated requests.

Columns with defaults, so that processes of the previous version continue.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = """
create table file (
  id bigint generated always as identity constraint file_pkey primary key,
  public_id uuid not null constraint file_public_id_key unique,
  tenant_id bigint not null constraint file_tenant_id_fkey references tenant (id),
  filename text not null,
  purpose text not null,
  state smallint not null default 0,
  size bigint not null default 0,
  digest bytea,
  key_id text not null,
  data_key bytea,
  created_at timestamptz not null default now(),
  expires_at timestamptz
);
create index file_tenant on file (tenant_id, id desc);
create index file_expiring on file (expires_at) where state in (0, 1);

alter table job
  add column input_file_id uuid,
  add column endpoint text not null default '/v1/moderations',
  add column completion_window text not null default '24h',
  add column expires_at timestamptz,
  add column cancelling_at timestamptz,
  add column ends_as smallint not null default 4,
  add column purge_hours real,
  add column webhook_metadata jsonb,
  add column online boolean not null default false;
create index job_expiring on job (expires_at) where state in (0, 1) and expires_at is not null;
create index job_from_file on job (intake_lease_until) where state = 0 and input_file_id is not null;

alter table rejection add column row_id text;

alter table api_key
  add column public_id uuid not null default gen_random_uuid() constraint api_key_public_id_key unique,
  add column hint text not null default '',
  add column scopes text[] not null default '{all}',
  add column expires_at timestamptz,
  add column last_used_at timestamptz;

alter table endpoint
  add column public_id uuid not null default gen_random_uuid() constraint endpoint_public_id_key unique,
  add column name text not null default 'callback',
  add column updated_at timestamptz,
  add column old_secret bytea,
  add column old_secret_until timestamptz,
  add column failing_since timestamptz,
  add column disabled_reason text;

alter table outbox add column subject jsonb;
alter table delivery add column subject jsonb;
create index delivery_endpoint on delivery (endpoint_id, id desc);
create index delivery_open on delivery (endpoint_id) where state in (0, 1);
create index endpoint_listening on endpoint (tenant_id) where job_id is null;
create index endpoint_job on endpoint (job_id) where job_id is not null;

create table repeat (
  tenant_id bigint not null,
  key bytea not null,
  fingerprint bytea not null,
  subject text,
  created_at timestamptz not null default now(),
  constraint repeat_pkey primary key (tenant_id, key)
);
create index repeat_created_at on repeat (created_at);
"""


def upgrade() -> None:
    """Add the columns and the tables."""
    op.execute(TABLES)
