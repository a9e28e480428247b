"""Workers as rows, the size of a shard's texts, and the number of workers that the work needs, for autoscalers.

Revision ID: 0019
Revises: 0018
"""

from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

TABLES = """
create table worker (
  name text primary key,
  model text,
  revision text,
  state smallint not null,
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  tokens_per_s real,
  tokens_per_byte real
);
create table scaling (
  route text primary key,
  wanted integer not null,
  at timestamptz not null default now()
);
alter table shard add column text_bytes integer not null default 0;
"""


def upgrade() -> None:
    """Add both tables and the column; the view on them is one of the current code's (`guardfleet.store.schema.view`)."""
    op.execute(TABLES)
