"""Jobs that judge another job's failed texts again, and what each job has cost in device seconds.

`retried` says of each such text its place in the first job. Columns with defaults, so that processes of the previous version
continue: they add no device seconds, and refuse nothing.

Revision ID: 0017
Revises: 0016
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

UP = """
alter table job add column retry_of bigint, add column device_s double precision not null default 0;
create index job_retries on job (retry_of) where retry_of is not null;
create table retried (
  of_job_id bigint not null,
  of_seq integer not null,
  job_id bigint not null,
  seq integer not null,
  primary key (of_job_id, of_seq, job_id),
  constraint retried_job_id_seq_key unique (job_id, seq)
);
"""


def upgrade() -> None:
    """Add the columns, the index and the table."""
    op.execute(UP)


def downgrade() -> None:
    """Remove them: what retries judged stays, as jobs of their own."""
    op.execute("drop table retried")
    op.execute("alter table job drop column retry_of, drop column device_s")
