"""The audit trail says who acted for which request, is found by tenant, time and subject, and forgets what is over.

Rows that an older version writes beside this one get the defaults. A row younger than 30 days can be deleted by no statement, none
can be changed; `guardfleet.domain.actions.LEAST_DAYS` is the same number.

Revision ID: 0018
Revises: 0017
"""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

AUDIT = """
alter table audit_event
  add column public_id uuid not null default gen_random_uuid() constraint audit_event_public_id_key unique,
  add column actor_kind text not null default 'unknown',
  add column request_id text,
  add column detail jsonb,
  add constraint audit_event_detail_check check (length(detail::text) <= 2000);
create index audit_event_tenant on audit_event (tenant_id, at, id);
create index audit_event_at on audit_event (at, id);
create index audit_event_subject on audit_event (subject);

drop trigger audit_event_insert_only on audit_event;
create trigger audit_event_insert_only before update or truncate on audit_event
  for each statement execute function audit_event_is_insert_only();
create function audit_event_is_kept() returns trigger language plpgsql as
  $$ begin
    if old.at > now() - interval '30 days' then raise exception 'audit_event keeps its rows for 30 days'; end if;
    return old;
  end $$;
create trigger audit_event_kept before delete on audit_event for each row execute function audit_event_is_kept();
"""


def upgrade() -> None:
    """Add the columns and indexes; replace the trigger."""
    op.execute(AUDIT)
