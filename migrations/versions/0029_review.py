"""Review queues, and the tasks that they hand to people; golden labels are found by an index of their own.

Revision ID: 0029
Revises: 0028
"""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

TABLES = """
create table review_queue (
  id bigint generated always as identity primary key,
  public_id uuid not null default gen_random_uuid(),
  tenant_id bigint not null references tenant (id),
  name text not null,
  job_id bigint,
  sample_id bigint,
  reviewers text[],
  second_share double precision not null,
  golden_share double precision not null,
  break_after integer not null,
  shows_verdict boolean not null,
  lease_s integer not null,
  is_open boolean not null default true,
  created_at timestamptz not null default now(),
  constraint review_queue_public_id_key unique (public_id),
  constraint review_queue_tenant_id_name_key unique (tenant_id, name),
  constraint review_queue_check check (sample_id is null or job_id is not null)
);
create index review_queue_job on review_queue (job_id);
create table review_task (
  id bigint generated always as identity primary key,
  tenant_id bigint not null,
  queue_id bigint not null references review_queue (id) on delete cascade,
  job_id bigint not null,
  seq integer not null,
  kind smallint not null,
  wants_second boolean not null default false,
  golden smallint,
  claimed_by text,
  claimed_at timestamptz,
  lease_until timestamptz,
  token integer not null default 0,
  skipped_by text[] not null default '{}',
  severity smallint,
  categories smallint not null default 0,
  decided_at timestamptz,
  label_id bigint,
  gone_at timestamptz,
  created_at timestamptz not null default now(),
  constraint review_task_check check ((decided_at is null) = (severity is null))
);
create unique index review_task_once on review_task (job_id, seq, kind) where kind <> 2;
create index review_task_text on review_task (job_id, seq);
create index review_task_open on review_task (queue_id, id) where decided_at is null and gone_at is null;
create index review_task_person on review_task (tenant_id, claimed_by, decided_at);
create index label_golden on label (tenant_id, job_id, seq) where source = 3;
"""


def upgrade() -> None:
    """Add the tables and the index."""
    op.execute(TABLES)
