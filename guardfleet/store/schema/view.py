"""The views for readers in SQL, `verdicts` above all: stored verdicts in words. Recreated after every migration.

The words come from the code's tables, and the view calls the same rows unreadable as `verdicts.encoding` does; a test compares the
two over random rows. Columns are only ever added, at the end: two versions run side by side.
"""

from collections.abc import Iterable, Mapping

from guardfleet.domain import ids
from guardfleet.domain.detection import LEAST_FOUND, Outcome
from guardfleet.domain.verdict import CATEGORY_CHOICES, CATEGORY_NAMES, ERROR_CODES, ServedBy, Severity
from guardfleet.policy.document import Action
from guardfleet.store.policy.decisions import NEWEST
from guardfleet.store.words import public_id
from guardfleet.verdicts.detections import SERVED
from guardfleet.verdicts.detections import SHOWN_DIGITS as SCORE_DIGITS
from guardfleet.verdicts.detections import SLACK as SCORES_SLACK
from guardfleet.verdicts.encoding import ALL_CATEGORIES, CERTAIN, CERTAIN_ODDS, LABELS, UNKNOWN_ODDS


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _array(values: Iterable[str]) -> str:
    return f"(array[{', '.join(map(_quoted, values))}])"


def _rows(values: Iterable[str]) -> str:
    return ", ".join(f"({place}, {_quoted(value)})" for place, value in enumerate(values))


def _if_read(expression: str, otherwise: str = "null") -> str:
    return f"case when u.reason is null then {expression} else {otherwise} end"


def _error_words() -> str:
    return " ".join(f"when {_quoted(code)} then {_quoted(words)}" for code, words in ERROR_CODES.items())


def _severities() -> str:
    return " ".join(f"when v.severity = {severity} then {_quoted(severity.label)}" for severity in Severity)


SQL = "language sql immutable parallel safe"
FUNCTIONS = f"""
create or replace function guardfleet_categories(bits smallint) returns text[] {SQL} as $$
  select coalesce(array_agg(name order by bit), '{{}}') from (values {_rows(CATEGORY_NAMES.values())}) c (bit, name)
  where bits::int & (1 << bit) <> 0 $$;

create or replace function guardfleet_probability(probabilities bytea, place int) returns numeric {SQL} as $$
  select round(get_byte(probabilities, place) / {CERTAIN}.0, 3) $$;

create or replace function guardfleet_category_odds(odds bytea) returns jsonb {SQL} as $$
  select jsonb_object_agg(name, round(get_byte(odds, place) / {CERTAIN_ODDS}.0, 3) order by place)
  from (values {_rows(CATEGORY_CHOICES)}) c (place, name)
  where get_byte(odds, place) < {UNKNOWN_ODDS} $$;

create or replace function guardfleet_extent(e jsonb) returns text {SQL} as $$
  select coalesce('; decided by characters ' || (e -> 'decided' ->> 0) || ' to ' || (e -> 'decided' ->> 1)
                  || case when jsonb_array_length(e -> 'windows') > 1
                          then ', one of ' || jsonb_array_length(e -> 'windows') || ' windows' else '' end, '')
      || coalesce('; on list ' || (e -> 'lists' -> 0 ->> 'list') || ', entry ' || (e -> 'lists' -> 0 ->> 'entry')
                  || ', characters ' || (e -> 'lists' -> 0 ->> 'start') || ' to ' || (e -> 'lists' -> 0 ->> 'end')
                  || coalesce(' of turn ' || (e -> 'lists' -> 0 ->> 'turn'), '')
                  || case when jsonb_array_length(e -> 'lists') + coalesce((e ->> 'more_hits')::int, 0) > 1
                          then ', and ' || jsonb_array_length(e -> 'lists') + coalesce((e ->> 'more_hits')::int, 0) - 1 || ' more'
                          else '' end, '')
      || coalesce('; left out on request: characters ' || (
           select string_agg((part ->> 0) || ' to ' || (part ->> 1), ', ') from jsonb_array_elements(e -> 'left_out') part), '')
      || coalesce('; left out as too long: the oldest ' || (e ->> 'turns_left_out') || ' turns', '')
      || coalesce('; left out as too long: the first ' || (e ->> 'context_cut') || ' characters of the turn before', '')
      || coalesce('; role labels within the text: ' || (e ->> 'role_labels')
                  || case when (e ->> 'role_labels_neutralised')::bool then ', neutralised' else '' end, '') $$;

create or replace function guardfleet_unreadable(v verdict) returns text {SQL} as $$
  select case
    when v.severity not between {Severity.UNRATED} and {Severity.ERROR} then 'severity ' || v.severity
    when v.categories not between 0 and {ALL_CATEGORIES} then 'categories ' || v.categories
    when v.served_by not between {min(ServedBy)} and {max(ServedBy)} then 'served by ' || v.served_by
    when octet_length(v.probabilities) <> {len(LABELS)} then octet_length(v.probabilities) || ' probabilities'
    when octet_length(v.category_odds) <> {len(CATEGORY_CHOICES)} then octet_length(v.category_odds) || ' category odds'
    when (v.severity = {Severity.ERROR}) <> (v.error is not null) then 'an error without a code, or a code without an error'
    when v.severity = {Severity.SAFE} and v.categories <> 0 then 'safe with categories'
    when v.severity = {Severity.UNRATED} and (v.categories <> 0 or v.served_by <> {ServedBy.NOBODY}) then 'unrated, and yet judged'
    when v.served_by = {ServedBy.NOBODY} and v.severity not in ({Severity.ERROR}, {Severity.UNRATED})
      then 'a severity that nobody gave'
    when v.served_by = {ServedBy.RULE_EMPTY} and v.severity <> {Severity.SAFE} then 'an empty text that is not safe'
    when v.served_by = {ServedBy.LIST} and v.severity = {Severity.ERROR} then 'an error that a list decided'
  end $$;

create or replace function guardfleet_no_verdict(error text, detail text, evidence jsonb) returns text {SQL} as $$
  select 'No verdict: ' || case error {_error_words()} else coalesce(error, 'unknown') end
         || coalesce(' (' || detail || ')', '') || coalesce(guardfleet_extent(evidence), '') || '.' $$;

create or replace function guardfleet_decision(job bigint, place int) returns jsonb language sql stable parallel safe as $$
  select jsonb_build_object('action', {_array(action.label for action in Action)}[o.action + 1],
                            'policy', p.name || '@' || p.version, 'rule', o.rule, 'reason', o.reason, 'labels', o.labels)
  from decision d join job j on j.id = d.job_id join tenant t on t.id = j.tenant_id join policy p on p.id = d.policy_id
  join policy_outcome o on o.policy_id = d.policy_id and o.outcome = get_byte(d.outcomes, place - d.first_seq)
  where d.job_id = job and not d.shadow and p.activated_at is not null and place < d.first_seq + d.n and d.first_seq = (
    select max(x.first_seq) from decision x where x.job_id = job and x.first_seq <= place)
  order by {NEWEST} limit 1 $$;

create or replace function guardfleet_detection_wrong(d detection, m model) returns text {SQL} as $$
  select case
    when d.outcome not between {min(Outcome)} and {max(Outcome)} then 'outcome ' || d.outcome
    when d.served_by not in ({", ".join(str(int(one)) for one in SERVED)}) then 'served by ' || d.served_by
    when d.label is not null and d.label not between 0 and cardinality(m.labels) - 1 then 'a label that the model does not have'
    when d.scores is not null and (cardinality(d.scores) <> cardinality(m.labels)
      or not coalesce(0 <= all (d.scores) and 1 >= all (d.scores), false)) then 'its scores are none'
    when (d.outcome = {Outcome.LABELLED}) <> (d.label is not null)
      then 'a label without its outcome, or an outcome without its label'
    when (d.outcome = {Outcome.ERROR}) <> (d.error is not null) then 'an error without a code, or a code without an error'
    when d.outcome in ({Outcome.LABELLED}, {Outcome.UNLABELLED})
      and (d.scores is null or d.served_by in ({ServedBy.NOBODY}, {ServedBy.RULE_EMPTY})) then 'a finding that no model made'
    when d.outcome = {Outcome.UNLABELLED} and m.neutral is not null then 'no label, where the model always has one'
    when d.outcome not in ({Outcome.LABELLED}, {Outcome.UNLABELLED}) then null
    when m.neutral is not null and abs((select sum(s::float8) from unnest(d.scores) s) - 1) > {SCORES_SLACK}
      then 'its scores do not add up to 1'
    when d.label is not null and d.scores[d.label + 1] < any (d.scores) then 'a label whose score is not the highest'
    when m.neutral is null and case when d.label is null then {LEAST_FOUND} < any (d.scores)
                                    else d.scores[d.label + 1] < {LEAST_FOUND} end
      then 'a label that was not found, or one that was found and is not there'
  end $$;

create or replace function guardfleet_scores(d detection, m model) returns jsonb {SQL} as $$
  select jsonb_object_agg(l.label, round(s.score::float8::numeric, {SCORE_DIGITS}) order by s.at)
  from unnest(d.scores) with ordinality s (score, at) join unnest(m.labels) with ordinality l (label, at) on l.at = s.at $$;

create or replace function guardfleet_detection(d detection, m model) returns jsonb {SQL} as $$
  select jsonb_build_object(
    'outcome', case when wrong is null then {_array(one.label for one in Outcome)}[d.outcome + 1] else 'error' end,
    'label', case when wrong is null then m.labels[d.label + 1] end,
    'scores', case when wrong is null then guardfleet_scores(d, m) end,
    'served_by', case when wrong is null then {_array(s.label for s in ServedBy)}[d.served_by + 1] else 'nobody' end,
    'model', m.name, 'revision', m.revision, 'policy', m.policy, 'is_demo', m.is_demo,
    'evidence', case when wrong is null then d.evidence end,
    'error', case when wrong is not null then jsonb_build_object('code', 'unreadable', 'detail', wrong)
                  when d.error is not null then jsonb_build_object('code', d.error, 'detail', d.error_detail) end)
    || case when wrong is null and d.reason is not null then jsonb_build_object('models_words', d.reason) else '{{}}' end
  from (select guardfleet_detection_wrong(d, m) as wrong offset 0) w $$;  -- offset 0: asked once, not for each member

create or replace function guardfleet_detections(job bigint, on_day date, of_seq int) returns jsonb
language sql stable parallel safe as $$
  select jsonb_object_agg(coalesce(j.detectors[d.place + 1], m.detector), guardfleet_detection(d, m) order by d.place)
  from detection d left join job j on j.id = d.job_id join model m on m.id = d.model_id
  where d.job_id = job and d.day = on_day and d.seq = of_seq $$;

create or replace function guardfleet_rationale(v verdict, model text) returns text language sql stable parallel safe as $$
  select case
    when guardfleet_unreadable(v) is not null then guardfleet_no_verdict('unreadable', guardfleet_unreadable(v), v.evidence)
    when v.severity = {Severity.ERROR} then guardfleet_no_verdict(v.error, v.error_detail, v.evidence)
    when v.served_by = {ServedBy.RULE_EMPTY} then 'Safe: the text is empty, so there was nothing to judge.'
    when v.severity = {Severity.UNRATED}
      then 'Not rated: the job did not ask the guard' || coalesce(guardfleet_extent(v.evidence), '') || '.'
    else {_array(LABELS.values())}[v.severity + 1]
      || case v.categories when 0 then ', no category'
                           else ' in ' || array_to_string(guardfleet_categories(v.categories), ', ') end
      || case v.refusal when true then '; the response is a refusal' when false then '; the response is no refusal' else '' end
      || coalesce('; probability safe ' || guardfleet_probability(v.probabilities, 0)
                  || ', controversial ' || guardfleet_probability(v.probabilities, 1)
                  || ', unsafe ' || guardfleet_probability(v.probabilities, 2), '')
      || coalesce(guardfleet_extent(v.evidence), '')
      || case v.served_by when {ServedBy.LIST} then '; decided by the list' else '; judged by ' || model end
      || case v.served_by when {ServedBy.CACHE} then ' earlier (cached)'
                          when {ServedBy.DUPLICATE} then ' on the same text in this job' else '' end || '.'
  end $$;
"""

# Each column and its meaning, in the order of the view: existing columns keep their places.
COLUMNS: Mapping[str, tuple[str, str]] = {
    "job_id": ("v.job_id", "The job's number inside this database; `job` is its name everywhere else."),
    "seq": ("v.seq", "The text's place in its input, from 0."),
    "day": ("v.day", "The day (UTC) the job was submitted on; verdicts are partitioned by it."),
    "id": ("v.id", "The caller's id of the text; of a text judged over HTTP while the caller waited, its place."),
    "severity": (
        _if_read(f"case {_severities()} end", "'error'"),
        "safe, controversial or unsafe; error where there is no verdict, unrated where none was asked for: neither is safe.",
    ),
    "categories": (
        _if_read("guardfleet_categories(v.categories)", "'{}'"),
        "What the model named, in its own spelling; several for a text in windows.",
    ),
    "refusal": (
        _if_read("v.refusal"),
        "Whether the response is a refusal; null where a prompt was judged.",
    ),
    "p_safe": (_if_read("guardfleet_probability(v.probabilities, 0)"), "P(safe), in steps of 1/255."),
    "p_controversial": (_if_read("guardfleet_probability(v.probabilities, 1)"), "P(controversial)."),
    "p_unsafe": (_if_read("guardfleet_probability(v.probabilities, 2)"), "P(unsafe)."),
    "rationale": ("guardfleet_rationale(v, m.name || '@' || left(m.revision, 12))", "The evidence as a sentence."),
    "served_by": (
        _if_read(f"{_array(s.label for s in ServedBy)}[v.served_by + 1]", "'nobody'"),
        "What gave the verdict: model, cache, duplicate, rule:empty, list; nobody where there is none.",
    ),
    "raw": ("v.raw", "The model's answer; null where it says the other columns and nothing else, to the letter."),
    "error": (_if_read("v.error", "'unreadable'"), "Why there is no verdict, as a code."),
    "error_detail": ("coalesce(u.reason, v.error_detail)", "What is known of the error; never the text."),
    "model": ("m.name", "The model that judged; nobody where none came to."),
    "revision": ("m.revision", "Which weights."),
    "policy": ("m.policy", "Digest of the chat template, which holds the policy."),
    "is_demo": ("m.is_demo", "Judged by the demo model, which is not for real use."),
    "input_tokens": ("v.input_tokens", "Tokens of the prompt."),
    "output_tokens": ("v.output_tokens", "Tokens of the answer."),
    "done_at": ("v.done_at", "When the verdict was committed."),
    "metadata": ("v.metadata", "What the caller sent with the text."),
    "severity_code": ("v.severity", "As stored, also where it makes no verdict: 0 safe, 1 controversial, 2 unsafe, 3 error."),
    "category_odds": ("v.category_odds", "As stored: a byte for none and each category, 254 = 1, 255 = not known."),
    "category_probabilities": (
        _if_read("guardfleet_category_odds(v.category_odds)"),
        "Probability that the category is the first to be named, where that is known.",
    ),
    "evidence": ("v.evidence", "Windows of a long text, the one that decided, and what was left out."),
    "job": (
        public_id(ids.JOB, "j.public_id"),
        "The job's name: `guardfleet results JOB`, and over HTTP with batch_.",
    ),
    "tenant_id": ("j.tenant_id", "Whose job it is."),
    "is_online": ("j.online", "Judged over HTTP while the caller waited: of no job that anybody submitted."),
    "action": (
        "guardfleet_decision(v.job_id, v.seq) ->> 'action'",
        "What the policy in force says to do: allow, flag, review or block; null where no policy decided.",
    ),
    "decision": (
        "guardfleet_decision(v.job_id, v.seq)",
        "The action, the policy with its version, the rule that fired (null: the default), its reason and its labels.",
    ),
    "detections": (
        "guardfleet_detections(v.job_id, v.day, v.seq)",
        "What each detector but the guard says, by its name; null where none was asked. The view `detections` has a row for each.",
    ),
}
VIEW = f"""
create or replace view verdicts as
select {", ".join(f"{expression} as {name}" for name, (expression, _) in COLUMNS.items())}
from verdict v join model m on m.id = v.model_id left join job j on j.id = v.job_id
     cross join lateral (select guardfleet_unreadable(v) as reason) u;
"""
# The view of detections, likewise.
DETECTION_COLUMNS: Mapping[str, tuple[str, str]] = {
    "job_id": ("d.job_id", "The job's number inside this database."),
    "seq": ("d.seq", "The text's place in its input, from 0."),
    "day": ("d.day", "The day (UTC) the job was submitted on."),
    "id": (
        "(select v.id from verdict v where v.job_id = d.job_id and v.day = d.day and v.seq = d.seq)",
        "The caller's id of the text.",
    ),
    "detector": (
        "coalesce(j.detectors[d.place + 1], m.detector)",
        "Who says it, as the job names it: with the policy and its version, if it judged by one.",
    ),
    "outcome": (
        f"case when w.wrong is null then {_array(one.label for one in Outcome)}[d.outcome + 1] else 'error' end",
        "labelled, unlabelled, too_short or error.",
    ),
    "label": ("case when w.wrong is null then m.labels[d.label + 1] end", "The label, which may be the neutral one."),
    "score": (
        f"case when w.wrong is null then round(d.scores[d.label + 1]::float8::numeric, {SCORE_DIGITS})::float8 end",
        "The score of the label, 0 to 1.",
    ),
    "scores": ("case when w.wrong is null then guardfleet_scores(d, m) end", "The score of each label."),
    "served_by": (
        f"case when w.wrong is null then {_array(s.label for s in ServedBy)}[d.served_by + 1] else 'nobody' end",
        "model, cache, duplicate, rule:empty; nobody where there is no detection.",
    ),
    "error": ("case when w.wrong is null then d.error else 'unreadable' end", "Why there is no detection, as a code."),
    "error_detail": ("coalesce(w.wrong, d.error_detail)", "What is known of the error; never the text."),
    "evidence": ("case when w.wrong is null then d.evidence end", "The windows of a long text."),
    "models_words": (
        "case when w.wrong is null then d.reason end",
        "What the model wrote on why, if it was asked: its own words, which may be wrong.",
    ),
    "model": ("m.name", "The model."),
    "revision": ("m.revision", "Which weights."),
    "policy": ("m.policy", "Digest of what else decides the answer."),
    "is_demo": ("m.is_demo", "Judged by a demo model, which is not for real use."),
    "input_tokens": ("d.input_tokens", "Tokens that the model read."),
    "output_tokens": ("d.output_tokens", "Tokens that it wrote."),
    "done_at": ("d.done_at", "When the detection was committed."),
    "job": (public_id(ids.JOB, "j.public_id"), "The job's name."),
    "tenant_id": ("j.tenant_id", "Whose job it is."),
}
DETECTIONS = f"""
create or replace view detections as
select {", ".join(f"{expression} as {name}" for name, (expression, _) in DETECTION_COLUMNS.items())}
from detection d join model m on m.id = d.model_id left join job j on j.id = d.job_id
     cross join lateral (select guardfleet_detection_wrong(d, m) as wrong offset 0) w;
"""
WANTED_VIEW = """
create or replace view guardfleet_workers_wanted as
select route, wanted, at from scaling where at > now() - interval '2 minutes';
comment on view guardfleet_workers_wanted is
  'For autoscalers: how many workers a route needs. A row that no dispatcher has renewed for 2 minutes is missing, not zero.';
"""
COMMENTS = "\n".join(f"comment on column verdicts.{name} is {_quoted(comment)};" for name, (_, comment) in COLUMNS.items())
OF_DETECTIONS = "\n".join(
    f"comment on column detections.{name} is {_quoted(comment)};" for name, (_, comment) in DETECTION_COLUMNS.items()
)
STATEMENTS = f"{FUNCTIONS}{VIEW}{COMMENTS}\n{DETECTIONS}{OF_DETECTIONS}\n{WANTED_VIEW}"
