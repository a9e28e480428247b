"""Deployments: which model a detector's workers are to serve, who serves what, and how two models compared.

Revision ID: 0026
Revises: 0025
"""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

TABLES = """
create table deployment (
  id bigint generated always as identity primary key,
  detector text not null,
  model text not null,
  revision text,
  found text,
  name text,
  state smallint not null,
  share double precision not null default 0,
  canary_texts integer not null default 0,
  min_agreement double precision not null default 0,
  alone boolean not null default false,
  golden bytea,
  golden_accuracy double precision not null default 0,
  golden_texts integer not null default 0,
  golden_right integer,
  data_key bytea,
  key_id text,
  reason text,
  actor text not null,
  created_at timestamptz not null default now(),
  changed_at timestamptz not null default now(),
  activated_at timestamptz,
  compared integer not null default 0,
  agreed integer not null default 0,
  live_errors integer not null default 0,
  errors integer not null default 0,
  live_s double precision not null default 0,
  candidate_s double precision not null default 0,
  skipped integer not null default 0
);
create unique index deployment_active on deployment (detector) where state = 3;
create unique index deployment_candidate on deployment (detector) where state in (0, 1, 2);
create table seat (
  worker text primary key,
  detector text not null,
  deployment_id bigint,
  beside_id bigint,
  swapping_at timestamptz,
  follows boolean not null,
  reason text,
  seen_at timestamptz not null default now()
);
create table comparison (
  deployment_id bigint not null references deployment (id) on delete cascade,
  language text not null,
  subject text not null,
  live text not null,
  candidate text not null,
  n integer not null,
  primary key (deployment_id, language, subject, live, candidate)
);
create table disagreement (
  deployment_id bigint not null references deployment (id) on delete cascade,
  job_id bigint not null,
  seq integer not null,
  live text not null,
  candidate text not null,
  primary key (deployment_id, job_id, seq)
);
"""


def upgrade() -> None:
    """Add the tables."""
    op.execute(TABLES)
