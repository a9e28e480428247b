"""The rationale says how many lines of a text look like turns, and whether they were neutralised before the model saw them.

Only the function that words the evidence changes: an older version writes no such evidence.

Revision ID: 0010
Revises: 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

EXTENT = """
create or replace function guardfleet_extent(e jsonb) returns text language sql immutable parallel safe as $$
  select coalesce('; decided by characters ' || (e -> 'decided' ->> 0) || ' to ' || (e -> 'decided' ->> 1)
                  || case when jsonb_array_length(e -> 'windows') > 1
                          then ', one of ' || jsonb_array_length(e -> 'windows') || ' windows' else '' end, '')
      || coalesce('; left out on request: characters ' || (
           select string_agg((part ->> 0) || ' to ' || (part ->> 1), ', ') from jsonb_array_elements(e -> 'left_out') part), '')
      || coalesce('; left out as too long: the oldest ' || (e ->> 'turns_left_out') || ' turns', '')
      || coalesce('; left out as too long: the first ' || (e ->> 'context_cut') || ' characters of the turn before', '')
"""
LABELS = """
      || coalesce('; role labels within the text: ' || (e ->> 'role_labels')
                  || case when (e ->> 'role_labels_neutralised')::bool then ', neutralised' else '' end, '')
"""


def upgrade() -> None:
    """Replace the function."""
    op.execute(f"{EXTENT}{LABELS} $$;")


def downgrade() -> None:
    """Restore the previous function."""
    op.execute(f"{EXTENT} $$;")
