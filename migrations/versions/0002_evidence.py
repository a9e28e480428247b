"""Evidence of a verdict: category probabilities, and the windows and omissions of long texts.

Nullable columns, so that workers of the previous version can still write.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COLUMNS = """
alter table verdict add column category_odds bytea, add column evidence jsonb;
"""

VIEW = """
create function guardfleet_category_odds(odds bytea) returns jsonb language sql immutable parallel safe as $$
  select jsonb_object_agg(name, round(get_byte(odds, place) / 254.0, 3) order by place)
  from (values (0, 'None'), (1, 'Violent'), (2, 'Non-violent Illegal Acts'), (3, 'Sexual Content or Sexual Acts'), (4, 'PII'),
               (5, 'Suicide & Self-Harm'), (6, 'Unethical Acts'), (7, 'Politically Sensitive Topics'),
               (8, 'Copyright Violation'), (9, 'Jailbreak')) c (place, name)
  where get_byte(odds, place) < 255 $$;

create function guardfleet_extent(e jsonb) returns text language sql immutable parallel safe as $$
  select coalesce('; decided by characters ' || (e -> 'decided' ->> 0) || ' to ' || (e -> 'decided' ->> 1)
                  || case when jsonb_array_length(e -> 'windows') > 1
                          then ', one of ' || jsonb_array_length(e -> 'windows') || ' windows' else '' end, '')
      || coalesce('; left out on request: characters ' || (
           select string_agg((part ->> 0) || ' to ' || (part ->> 1), ', ') from jsonb_array_elements(e -> 'left_out') part), '')
      || coalesce('; left out as too long: the oldest ' || (e ->> 'turns_left_out') || ' turns', '')
      || coalesce('; left out as too long: the first ' || (e ->> 'context_cut') || ' characters of the turn before', '') $$;

create or replace function guardfleet_rationale(v verdict, model text) returns text language sql stable parallel safe as $$
  select case
    when v.severity = 3 then 'No verdict: ' || case v.error
        when 'unparsed' then 'the model''s answer is not in its own grammar'
        when 'too_long' then 'the text is longer than may be judged'
        when 'invalid_conversation' then 'the messages cannot be judged as a conversation'
        when 'engine_failed' then 'the engine failed on this text'
        when 'abandoned' then 'its shard failed too often'
        else coalesce(v.error, 'unknown') end
      || coalesce(' (' || v.error_detail || ')', '') || coalesce(guardfleet_extent(v.evidence), '') || '.'
    when v.served_by = 3 then 'Safe: the text is empty, so there was nothing to judge.'
    else (array['Safe', 'Controversial', 'Unsafe'])[v.severity + 1]
      || case when v.categories = 0 then ', no category' else ' in ' || array_to_string(guardfleet_categories(v.categories), ', ') end
      || case v.refusal when true then '; the response is a refusal' when false then '; the response is no refusal' else '' end
      || coalesce('; probability safe ' || guardfleet_probability(v.probabilities, 0)
                  || ', controversial ' || guardfleet_probability(v.probabilities, 1)
                  || ', unsafe ' || guardfleet_probability(v.probabilities, 2), '')
      || coalesce(guardfleet_extent(v.evidence), '')
      || '; judged by ' || model
      || case v.served_by when 1 then ' earlier (cached)' when 2 then ' on the same text in this job' else '' end || '.'
  end $$;

create or replace view verdicts as
select v.job_id, v.seq, v.day, v.id,
       (array['safe', 'controversial', 'unsafe', 'error'])[v.severity + 1] as severity,
       guardfleet_categories(v.categories) as categories,
       v.refusal,
       guardfleet_probability(v.probabilities, 0) as p_safe,
       guardfleet_probability(v.probabilities, 1) as p_controversial,
       guardfleet_probability(v.probabilities, 2) as p_unsafe,
       guardfleet_rationale(v, m.name || '@' || left(m.revision, 12)) as rationale,
       (array['model', 'cache', 'duplicate', 'rule:empty', 'nobody'])[v.served_by + 1] as served_by,
       v.raw, v.error, v.error_detail,
       m.name as model, m.revision, m.policy, m.is_demo,
       v.input_tokens, v.output_tokens, v.done_at, v.metadata,
       v.severity as severity_code,
       v.category_odds, guardfleet_category_odds(v.category_odds) as category_probabilities, v.evidence
from verdict v join model m on m.id = v.model_id;
"""


def upgrade() -> None:
    """Add the columns, and show them in the rationale."""
    op.execute(COLUMNS)
    op.execute(VIEW)
