"""Human labels of texts, and the samples that were drawn to be labelled.

`sample_text` has the probability with which each text was drawn, which makes estimates from its labels unbiased. The partial index
finds the shards that hold a text to review.

Revision ID: 0022
Revises: 0021
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

TABLES = """
create table sample (
  id bigint generated always as identity primary key,
  public_id uuid not null default gen_random_uuid(),
  tenant_id bigint not null references tenant (id),
  job_id bigint not null,
  design jsonb not null,
  n integer not null,
  seed bigint not null,
  created_at timestamptz not null default now(),
  constraint sample_public_id_key unique (public_id)
);
create index sample_job on sample (job_id);
create table sample_text (
  sample_id bigint not null,
  ord integer not null,
  job_id bigint not null,
  seq integer not null,
  probability double precision not null,
  stratum text,
  primary key (sample_id, ord),
  constraint sample_text_check check (probability > 0 and probability <= 1)
);
create index sample_text_text on sample_text (job_id, seq);
create table label (
  id bigint generated always as identity primary key,
  tenant_id bigint not null references tenant (id),
  job_id bigint not null,
  seq integer not null,
  source smallint not null,
  severity smallint not null,
  categories smallint not null default 0,
  author text not null,
  sample_id bigint,
  probability double precision,
  created_at timestamptz not null default now(),
  constraint label_check check ((sample_id is null) = (probability is null))
);
create index label_text on label (job_id, seq, id);
create index label_tenant on label (tenant_id, id);
create index decision_reviewed on decision (job_id, first_seq) where reviewed > 0 and not shadow;
"""


def upgrade() -> None:
    """Add the tables and the index."""
    op.execute(TABLES)
