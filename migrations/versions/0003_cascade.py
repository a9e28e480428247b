"""How a job is to be judged: a model by name, a second one for what the first is unsure of, how much of long texts.

A shard names the model that it waits for; what the first model said waits sealed in `first_opinion` until the second has spoken.
Columns with defaults, so that processes of the version before go on.

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
    """Add them."""
    op.execute(TABLES)
