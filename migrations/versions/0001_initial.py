"""Jobs, shards, verdicts, webhooks, keys, audit.

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
create table tenant (
  id bigint generated always as identity constraint tenant_pkey primary key,
  name text not null constraint tenant_name_key unique,
  created_at timestamptz not null default now());
insert into tenant (name) values ('default');

create table api_key (
  id bigint generated always as identity constraint api_key_pkey primary key,
  tenant_id bigint not null constraint api_key_tenant_id_fkey references tenant (id),
  name text not null,
  digest bytea not null constraint api_key_digest_key unique,
  created_at timestamptz not null default now(),
  revoked_at timestamptz);

create table model (
  id smallint generated always as identity constraint model_pkey primary key,
  name text not null, revision text not null, policy text not null, is_demo boolean not null,
  constraint model_name_revision_policy_key unique (name, revision, policy));

create table job (
  id bigint generated always as identity constraint job_pkey primary key,
  public_id uuid not null constraint job_public_id_key unique,
  tenant_id bigint not null constraint job_tenant_id_fkey references tenant (id),
  day date not null,
  state smallint not null default 0,
  lane smallint not null default 0,
  name text not null,
  fingerprint bytea,
  metadata jsonb,
  model_id smallint,
  total integer not null default 0,
  rejected integer not null default 0,
  done integer not null default 0,
  safe integer not null default 0,
  controversial integer not null default 0,
  unsafe integer not null default 0,
  error integer not null default 0,
  saved integer not null default 0,
  next_ord integer not null default 0,
  created_at timestamptz not null default now(),
  sealed_at timestamptz,
  finished_at timestamptz,
  purged_at timestamptz,
  reason text,
  key_id text not null,
  data_key bytea
) with (fillfactor = 50);
create index job_tenant on job (tenant_id, id desc);
create index job_fingerprint on job (tenant_id, fingerprint) where fingerprint is not null;
create index job_open on job (id) where state in (0, 1, 3);
create index job_purgeable on job (finished_at) where purged_at is null;

create table shard (
  job_id bigint not null, shard_no integer not null,
  day date not null,
  lane smallint not null default 0,
  first_seq integer not null, n integer not null,
  state smallint not null default 0,
  claims smallint not null default 0, failures smallint not null default 0,
  token bigint not null default 0,
  lease_until timestamptz, worker text,
  published_at timestamptz, publish_no integer not null default 0,
  next_attempt_at timestamptz, last_error text,
  constraint shard_pkey primary key (job_id, shard_no)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 500,
        autovacuum_vacuum_cost_delay = 0);
create index shard_ready on shard (lane, job_id, shard_no) where state = 0 and published_at is null;
create index shard_published on shard (lane, published_at) where state = 0 and published_at is not null;
create index shard_leased on shard (lease_until) where state = 1;

create table shard_payload (
  job_id bigint not null, shard_no integer not null, day date not null, blob bytea not null,
  constraint shard_payload_pkey primary key (job_id, shard_no, day)
) partition by range (day);

create table verdict (
  job_id bigint not null, seq integer not null, day date not null,
  severity smallint not null, categories smallint not null, served_by smallint not null, model_id smallint not null,
  refusal boolean, probabilities bytea,
  input_tokens integer not null, output_tokens smallint not null,
  done_at timestamptz not null default now(),
  digest uuid, id text, raw text, error text, error_detail text, metadata jsonb,
  constraint verdict_pkey primary key (job_id, seq, day)
) partition by range (day);
create index verdict_flagged on verdict (job_id, seq) where severity >= 1;
create index verdict_digest on verdict (digest) where served_by = 0 and severity < 3;

create table shard_done (
  job_id bigint not null, ord integer not null,
  shard_no integer not null, first_seq integer not null, n integer not null,
  constraint shard_done_pkey primary key (job_id, ord));

create table rejection (
  job_id bigint not null, line bigint not null, code text not null, detail text not null,
  constraint rejection_pkey primary key (job_id, line));

create table outbox (
  id bigint generated always as identity constraint outbox_pkey primary key,
  event_id text not null constraint outbox_event_id_key unique,
  tenant_id bigint not null, job_id bigint not null, kind text not null,
  created_at timestamptz not null default now());

create table endpoint (
  id bigint generated always as identity constraint endpoint_pkey primary key,
  tenant_id bigint not null constraint endpoint_tenant_id_fkey references tenant (id),
  job_id bigint,
  url text not null, secret bytea not null, kinds text[] not null,
  enabled boolean not null default true,
  created_at timestamptz not null default now());
create index endpoint_tenant on endpoint (tenant_id);

create table delivery (
  id bigint generated always as identity constraint delivery_pkey primary key,
  event_id text not null, endpoint_id bigint not null, job_id bigint not null, kind text not null,
  occurred_at timestamptz not null,
  state smallint not null default 0, attempts smallint not null default 0, token bigint not null default 0,
  next_attempt_at timestamptz not null default now(), lease_until timestamptz, published_at timestamptz,
  constraint delivery_event_id_endpoint_id_key unique (event_id, endpoint_id));
create index delivery_due on delivery (next_attempt_at) where state in (0, 1);

create table attempt (
  id bigint generated always as identity constraint attempt_pkey primary key,
  delivery_id bigint not null, attempt_no smallint not null, at timestamptz not null default now(),
  status smallint, latency_ms integer not null, error text);
create index attempt_delivery on attempt (delivery_id);

create table audit_event (
  id bigint generated always as identity constraint audit_event_pkey primary key,
  at timestamptz not null default now(),
  tenant_id bigint not null, actor text not null, action text not null, subject text not null);
create function audit_event_is_insert_only() returns trigger language plpgsql as
  $$ begin raise exception 'audit_event is insert-only'; end $$;
create trigger audit_event_insert_only before update or delete or truncate on audit_event
  for each statement execute function audit_event_is_insert_only();
"""

# Verdicts in words, for readers in SQL. `guardfleet/store/schema/view.py` replaces the view after every migration.
VIEW = r"""
create function guardfleet_categories(bits smallint) returns text[] language sql immutable parallel safe as $$
  select coalesce(array_agg(name order by bit), '{}')
  from (values (0, 'Violent'), (1, 'Non-violent Illegal Acts'), (2, 'Sexual Content or Sexual Acts'), (3, 'PII'),
               (4, 'Suicide & Self-Harm'), (5, 'Unethical Acts'), (6, 'Politically Sensitive Topics'),
               (7, 'Copyright Violation'), (8, 'Jailbreak')) c (bit, name)
  where bits::int & (1 << bit) <> 0 $$;

create function guardfleet_probability(probabilities bytea, place int) returns numeric language sql immutable parallel safe as $$
  select round(get_byte(probabilities, place) / 255.0, 3) $$;

create function guardfleet_rationale(v verdict, model text) returns text language sql stable parallel safe as $$
  select case
    when v.severity = 3 then 'No verdict: ' || case v.error
        when 'unparsed' then 'the model''s answer is not in its own grammar'
        when 'too_long' then 'the text is longer than the model takes'
        when 'invalid_conversation' then 'the messages cannot be judged as a conversation'
        when 'engine_failed' then 'the engine failed on this text'
        when 'abandoned' then 'its shard failed too often'
        else coalesce(v.error, 'unknown') end
      || coalesce(' (' || v.error_detail || ')', '') || '.'
    when v.served_by = 3 then 'Safe: the text is empty, so there was nothing to judge.'
    else (array['Safe', 'Controversial', 'Unsafe'])[v.severity + 1]
      || case when v.categories = 0 then ', no category' else ' in ' || array_to_string(guardfleet_categories(v.categories), ', ') end
      || case v.refusal when true then '; the response is a refusal' when false then '; the response is no refusal' else '' end
      || coalesce('; probability safe ' || guardfleet_probability(v.probabilities, 0)
                  || ', controversial ' || guardfleet_probability(v.probabilities, 1)
                  || ', unsafe ' || guardfleet_probability(v.probabilities, 2), '')
      || '; judged by ' || model
      || case v.served_by when 1 then ' earlier (cached)' when 2 then ' on the same text in this job' else '' end || '.'
  end $$;

create view verdicts as
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
       v.severity as severity_code
from verdict v join model m on m.id = v.model_id;
"""


def upgrade() -> None:
    """Create everything."""
    op.execute(TABLES)
    op.execute(VIEW)
