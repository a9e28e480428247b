"""Detectors beside the guard: which of them a job asks, and a row for each text and detector.

Revision ID: 0025
Revises: 0024
"""

import datetime as dt

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

TABLES = """
alter table model add column detector text not null default 'guard', add column labels text[] not null default '{}',
  add column neutral text;
alter table model drop constraint model_name_revision_policy_key;
alter table model add constraint model_name_revision_policy_detector_key unique (name, revision, policy, detector);
alter table job add column detectors text[], add column unrated integer not null default 0;
alter table first_opinion alter column model_id drop not null;
create table detection (
  job_id bigint not null,
  seq integer not null,
  place smallint not null,
  day date not null,
  model_id smallint not null,
  outcome smallint not null,
  label smallint,
  scores real[],
  served_by smallint not null,
  input_tokens integer not null,
  output_tokens integer not null,
  done_at timestamptz not null default now(),
  digest uuid,
  error text,
  error_detail text,
  evidence jsonb,
  reason text,
  primary key (job_id, seq, place, day)
) partition by range (day);
create index detection_digest on detection (digest) where served_by = 0 and outcome <> 3;
create table detected (
  job_id bigint not null,
  first_seq integer not null,
  place smallint not null,
  model_id smallint not null,
  n integer not null,
  unlabelled integer not null,
  too_short integer not null,
  error integer not null,
  labelled bigint[] not null,
  primary key (job_id, first_seq, place)
);
"""
DAYS = """select right(relname, 8) from pg_class
          where relkind = 'r' and relnamespace = 'public'::regnamespace and relname ~ '^verdict_[0-9]{8}$'"""


def upgrade() -> None:
    """Add the columns and tables, with the partitions of the days that have verdicts."""
    op.execute(TABLES)
    for name in op.get_bind().execute(sa.text(DAYS)).scalars():
        day = dt.datetime.strptime(name, "%Y%m%d").replace(tzinfo=dt.UTC).date()
        end = day + dt.timedelta(days=1)
        op.execute(f"create table detection_{name} partition of detection for values from ('{day}') to ('{end}')")
