"""How to judge a job: a model by name, a second one for texts that the first is unsure of, how much of long texts.

A shard names the model that it waits for; `first_opinion` holds the first model's provisional verdicts, encrypted, until the second
model has judged. Columns with defaults, so that processes of the previous version continue.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
alter table job
  add column first_model text,
  add column second_model text,
  add column sure real not null default 0.9,
  add column sample real not null default 0.01,
  add column long_texts text,
  add column escalated integer not null default 0,
  add column sampled integer not null default 0,
  add column agreed integer not null default 0;

alter table shard add column model text;

create table first_opinion (
  job_id bigint not null,
  shard_no integer not null,
  model_id smallint not null,
  blob bytea not null,
  primary key (job_id, shard_no)
);
"""


def upgrade() -> None:
    """Add the columns and the table."""
    op.execute(TABLES)
