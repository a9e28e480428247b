"""Policies on real PostgreSQL: decided in the verdict's commit, again later to the same end, and told the same by every face."""

import json
import random
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from api.openai.categories import result_json
from guardfleet.domain.decision import ACTIONS
from guardfleet.domain.verdict import Judgement
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.jobs import redecide as use_case
from guardfleet.jobs.intake import Intake
from guardfleet.jobs.redecide import redecide
from guardfleet.jobs.simulation import NOTHING, simulate
from guardfleet.policy.document import Action
from guardfleet.policy.evaluation import Decider
from guardfleet.policy.facts import CodeFacts
from guardfleet.policy.reading import of_value, read
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import audit, keys, models, verdicts
from guardfleet.store.audit import Wanted
from guardfleet.store.events import endpoints
from guardfleet.store.jobs import retention, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.policy import decisions, policies
from guardfleet.store.policy.decisions import Reads, Scope
from guardfleet.store.policy.policies import Version
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion
from guardfleet.store.shards.completion import Row
from guardfleet.telemetry import metrics
from guardfleet.verdicts.encoding import Codes, encode
from guardfleet.verdicts.filters import Filter
from guardfleet.verdicts.page import Cursor, of_actions
from tests.property.test_policies import facts_of
from tests.services.judged import SAFE, UNSAFE, UNSURE, any_judgement, failed
from tests.services.patience import patience
from tests.services.stored import LONG_AGO, MODEL, finished_on, new_job, scalar, submit, took

TENANT = 1
N = 90
STRICT = """
name: strict
default: allow
rules:
  - {id: german, when: {severity: unsafe, language: de}, action: review, reason: language}
  - {id: unsafe, when: {severity: unsafe, probability: {unsafe: {at_least: 0.5}}}, action: block, reason: unsafe, labels: [a, b]}
  - {id: unsure, when: {severity: [controversial, unsafe]}, action: flag}
"""
LOOSE = "name: loose\ndefault: flag\nerrors: block\n"


def activated(db: Database, text: str, tenant_id: int = TENANT) -> Version:
    version, _ = policies.add(db, tenant_id, read(text))
    policies.activate(db, version)
    return version


def metadata_of(i: int) -> dict[str, Any] | None:
    return None if i % 3 == 0 else {"lang": "de" if i % 2 else "en", "source": f"forum {i % 2}"}


def finished(db: Database, keyring: Keyring, judged: Sequence[Judgement], *, shard_texts: int = 40, **asked: Any) -> JobView:
    """A job whose texts got these judgements from a worker."""
    with Intake(db, keyring, load_settings(shard_texts=shard_texts), new_job(**asked)) as taking:
        taking.add_all((i + 1, PayloadRow(f"id{i}", "x", metadata_of(i))) for i in range(len(judged)))
        job = taking.seal()
    model_id = models.register(db, MODEL)
    for no in range(-(-len(judged) // shard_texts)):
        held = took(db, job, no)
        places = range(held.first_seq, held.first_seq + held.n)
        assert completion.finish(db, held, [Row(f"id{i}", judged[i], metadata=metadata_of(i)) for i in places], model_id=model_id)
    return views.get(db, job.public_id, tenant_id=job.tenant_id)


def counted() -> Counter[str]:
    """What the metric says."""
    samples = [sample for family in metrics.DECISIONS.collect() for sample in family.samples if sample.name.endswith("_total")]
    return Counter({sample.labels["action"]: int(sample.value) for sample in samples})


def undecided() -> int:
    """What the metric says."""
    return int(
        sum(sample.value for family in metrics.UNDECIDED.collect() for sample in family.samples if sample.name.endswith("_total"))
    )


def told(db: Database, job: JobView) -> list[Any]:
    """The action of each text, which all faces tell."""
    (pages,) = [list(verdicts.in_order(db, job))]
    by_fields = [row["decision"] for page in pages for row in page.fields()]
    by_json = [json.loads(said).get("decision") for page in pages for said in page.json_objects()]
    partial, cursor, by_page = True, Cursor(), {}
    while partial:
        page = verdicts.page(db, job, cursor, limit=17)
        by_page |= {row.seq: one for row, one in zip(page.rows, page.decided(), strict=True)}
        cursor, partial = page.reached, bool(page.rows)
    with db.session() as connection:
        by_view = connection.execute(f"select action, decision from verdicts where job_id = {job.id} order by seq").fetchall()
    by_moderation = [
        json.loads(result_json(row, page.models[row.model_id], one))["guardfleet"].get("decision")
        for page in pages
        for row, one in zip(page.rows, page.decided(), strict=True)
    ]
    assert by_fields == by_json == by_moderation == [row.decision for row in by_view]
    actions = [one and one["action"] for one in by_fields]
    assert actions == [one and one.action for _, one in sorted(by_page.items())] == [row.action for row in by_view]
    counts = views.get(db, job.public_id, tenant_id=job.tenant_id).actions
    assert {name: n for name, n in (counts or {}).items() if n} == dict(Counter(filter(None, actions)))
    assert counts is None or list(counts) == ["allow", "flag", "review", "block"], "all of them, mild to grave"
    assert counts is None or sum(counts.values()) == sum(one is not None for one in actions)
    return by_fields


@pytest.mark.parametrize("shard_texts", [4, 40], ids=["in one statement", "by COPY"])
def test_a_decision_is_in_the_verdicts_commit_and_in_every_face(db: Database, keyring: Keyring, shard_texts: int) -> None:
    version, before = activated(db, STRICT), counted()
    judged = [(SAFE, UNSAFE, UNSURE, failed("unparsed"))[i % 4] for i in range(N)]
    job = finished(db, keyring, judged, shard_texts=shard_texts)
    found = told(db, job)
    assert found[1] == {"action": "review", "policy": "strict@1", "rule": "german", "reason": "language", "labels": []}
    assert found[9] == {"action": "block", "policy": "strict@1", "rule": "unsafe", "reason": "unsafe", "labels": ["a", "b"]}
    assert found[0] == {"action": "allow", "policy": "strict@1", "rule": None, "reason": None, "labels": []}
    assert {one["action"] for one in found[3::4]} == {"review"}, "no error is allowed"
    assert scalar(db, f"select sum(n) from decision where job_id = {job.id} and policy_id = {version.id}") == N
    assert counted() - before == Counter(one["action"] for one in found)


def test_a_lost_claim_decides_nothing_and_a_text_that_is_kept_nowhere_is_decided(db: Database, keyring: Keyring) -> None:
    activated(db, STRICT)
    job = submit(db, keyring, 4)
    old = took(db, job, 0, lease_s=-1)
    new = took(db, job, 0)
    rows, model_id = [Row(f"id{i}", UNSAFE) for i in range(4)], models.register(db, MODEL)
    assert completion.finish(db, old, rows, model_id=model_id) is None
    assert scalar(db, "select count(*) from decision") == 0
    assert completion.finish(db, new, rows, model_id=model_id)
    assert scalar(db, "select count(*) from decision") == 1


def test_without_a_policy_nothing_is_said_and_nothing_is_written(db: Database, keyring: Keyring) -> None:
    assert set(map(str, told(db, finished(db, keyring, [SAFE] * 5)))) == {"None"}
    assert scalar(db, "select count(*) from decision") == 0


def test_stored_rows_decide_as_the_worker_did_whatever_is_in_them(db: Database, keyring: Keyring) -> None:
    rng = random.Random(11)
    judged = [any_judgement(rng) for _ in range(300)]
    job = finished(db, keyring, judged, shard_texts=100)
    with db.begin() as connection:  # and what no version writes
        for seq, change in enumerate(
            ("severity = 7", "served_by = 9", "probabilities = '\\x01'", "category_odds = '\\x00'", "error = 'x'")
        ):
            connection.execute(f"update verdict set {change} where job_id = {job.id} and seq = {seq}")
        stored = connection.execute(
            f"select {', '.join(Codes._fields)}, input_tokens from verdict where job_id = {job.id} order by seq"
        ).fetchall()
    found, _ = decisions.shards(db, Scope(TENANT, job.id), limit=9)
    by_rows = [one.facts for one in decisions.facts(db, found, Reads.ALL)]
    direct = facts_of([Codes(*row[:-1]) for row in stored], [row.input_tokens for row in stored])
    for name in ("severity", "categories", "served_by", "refusal", "tokens", "has_p", "by_category"):
        assert np.array_equal(np.concatenate([one[name] for one in by_rows]), direct[name]), name
    has = direct["has_p"]
    assert np.array_equal(np.concatenate([one["p"] for one in by_rows])[has], direct["p"][has])
    assert [row for one in by_rows for row in one.metadata or ()] == [metadata_of(i) for i in range(300)]
    whole = CodeFacts([encode(one) for one in judged], [one.input_tokens for one in judged])
    assert np.array_equal(whole["severity"][5:], direct["severity"][5:])


def test_versions_are_kept_and_going_back_is_activating_an_old_one(db: Database, keyring: Keyring) -> None:
    first = activated(db, STRICT)
    job = finished(db, keyring, [UNSAFE, SAFE] * 30)
    assert policies.add(db, TENANT, read(STRICT)) == (policies.get(db, TENANT, "strict@1"), False)
    second = activated(db, STRICT.replace("action: block", "action: review"))
    assert (second.label, policies.get(db, TENANT, "strict").label) == ("strict@2", "strict@2")
    assert Counter(one["action"] for one in told(db, job))["block"] == 30, "what is stored is decided by what decided it"
    assert redecide(db, second, Scope(TENANT, job.id)).texts == 60
    assert Counter(one["action"] for one in told(db, job)) == {"review": 30, "allow": 30}
    policies.activate(db, first)
    assert Counter(one["policy"] for one in told(db, job)) == {"strict@1": 60}
    assert scalar(db, f"select count(distinct policy_id) from decision where job_id = {job.id}") == 2
    assert policies.deactivate(db, first)
    assert not policies.deactivate(db, first)
    assert Counter(one["policy"] for one in told(db, job)) == {"strict@1": 60}, "the last that was applied, if none is"
    third = activated(db, LOOSE)
    assert Counter(one["policy"] for one in told(db, job)) == {"strict@1": 60}, "the last applied, not the newest, until it decides"
    trial, _ = policies.add(db, TENANT, read("name: trial\ndefault: block\n"))
    assert redecide(db, trial, Scope(TENANT, job.id)).texts == 60
    assert Counter(one["policy"] for one in told(db, job)) == {"strict@1": 60}, "what was never applied decides nothing"
    redecide(db, third, Scope(TENANT, job.id))
    assert Counter(one["policy"] for one in told(db, job)) == {"loose@1": 60}
    actions = [event.action for event in audit.events(db, Wanted()) if event.action.startswith("policy.")]
    assert actions == ["policy.create", "policy.activate"] * 2 + ["policy.redecide", "policy.activate", "policy.deactivate"] + [
        "policy.create",
        "policy.activate",
        "policy.create",
        "policy.redecide",
        "policy.redecide",
    ]
    with pytest.raises(NotFoundError, match="there is no policy strict@3"):
        policies.get(db, TENANT, "strict@3")


def test_a_shard_in_work_is_decided_by_what_is_applied_when_it_finishes(db: Database, keyring: Keyring) -> None:
    activated(db, STRICT)
    job = submit(db, keyring, 4)
    held = took(db, job, 0)
    activated(db, LOOSE)
    assert completion.finish(db, held, [Row(f"id{i}", UNSAFE) for i in range(4)], model_id=models.register(db, MODEL))
    assert {one["policy"] for one in told(db, job)} == {"loose@1"}


def test_a_shadow_is_recorded_and_told_to_nobody(db: Database, keyring: Keyring) -> None:
    shadow = activated(db, f"{LOOSE}shadow: true\n")
    job = finished(db, keyring, [UNSAFE] * 30)
    assert set(map(str, told(db, job))) == {"None"}
    assert scalar(db, f"select sum(flagged) from decision where policy_id = {shadow.id} and shadow") == 30
    activated(db, STRICT)
    both = finished(db, keyring, [UNSAFE] * 30)
    assert {one["policy"] for one in told(db, both)} == {"strict@1"}
    assert scalar(db, f"select count(distinct policy_id) from decision where job_id = {both.id}") == 2


def test_a_re_decision_that_was_killed_anywhere_is_finished_by_the_next_and_several_share_it(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [finished(db, keyring, [UNSAFE, SAFE, UNSURE] * 20, shard_texts=3) for _ in range(2)]
    version = activated(db, STRICT)
    monkeypatch.setattr(use_case, "SHARDS_AT_ONCE", 2)
    monkeypatch.setattr(use_case, "LIST", 8)
    write, written = decisions.record, []

    def dies(*args: Any) -> int:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(1)
        return write(*args)

    with monkeypatch.context() as broken:
        broken.setattr(decisions, "record", dies)
        with pytest.raises(KeyboardInterrupt):
            redecide(db, version, Scope(TENANT))
    assert 0 < scalar(db, "select count(*) from decision") < 40
    threads = [threading.Thread(target=redecide, args=(db, version, Scope(TENANT))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience(60))
    assert scalar(db, "select count(*) from decision") == 40
    assert redecide(db, version, Scope(TENANT)).texts == 0
    for job in jobs:
        assert len([one for one in told(db, job) if one]) == 60


def test_a_simulation_counts_what_a_re_decision_then_does(db: Database, keyring: Keyring) -> None:
    rng = random.Random(3)
    activated(db, LOOSE)
    jobs = [finished(db, keyring, [any_judgement(rng) for _ in range(150)]) for _ in range(2)]
    policies.deactivate(db, policies.get(db, TENANT, "loose"))
    undecided = finished(db, keyring, [UNSAFE] * 10)
    found = simulate(db, read(STRICT), Scope(TENANT))
    assert (found.texts, found.matrix[NOTHING].sum()) == (310, 10)
    before = scalar(db, "select count(*) from decision")
    version = activated(db, STRICT)
    old = {job.id: [one and one["action"] for one in told(db, job)] for job in (*jobs, undecided)}
    assert before == scalar(db, "select count(*) from decision"), "nothing was written"
    redecide(db, version, Scope(TENANT))
    moved = Counter((was, one["action"]) for job in (*jobs, undecided) for was, one in zip(old[job.id], told(db, job), strict=True))
    for (was, new), n in moved.items():
        assert found.matrix[NOTHING if was is None else Action[was.upper()]][Action[new.upper()]] == n, (was, new)
    assert found.changed == sum(n for (was, new), n in moved.items() if was != new)
    assert sum(found.by_rule.values()) == sum(texts for texts, _ in found.by_language.values()) == 310
    assert {"de", "en", "unknown"} == found.by_language.keys()
    assert {"unknown", "forum 0", "forum 1"} == found.by_source.keys()
    assert found.by_source["forum 1"] == found.by_language["de"]
    assert len(found.examples) == 10


def test_another_tenant_sees_and_does_none_of_it(db: Database, keyring: Keyring) -> None:
    keys.create(db, keyring, name="x", tenant="acme")
    acme = keys.tenant_id(db, "acme")
    activated(db, STRICT)
    mine, theirs = finished(db, keyring, [UNSAFE] * 5), finished(db, keyring, [UNSAFE] * 5, tenant_id=acme)
    assert [one is None for one in (*told(db, mine), *told(db, theirs))] == [False] * 5 + [True] * 5
    version, _ = policies.add(db, acme, read(LOOSE))
    assert policies.every(db, acme) == [version]
    assert redecide(db, version, Scope(acme)).texts == 5
    with pytest.raises(NotFoundError):
        policies.get(db, acme, "strict")


def test_a_policy_of_a_newer_release_leaves_texts_undecided_and_their_verdicts_stand(db: Database, keyring: Keyring) -> None:
    version = activated(db, STRICT)
    with db.begin() as connection:
        connection.execute("""update policy set document = jsonb_set(document, '{rules,0,when}', '{"smell": "odd"}')""")
    assert policies.not_understood(db) is None
    before = undecided()
    job = finished(db, keyring, [UNSAFE] * 5)
    assert (job.unsafe, set(map(str, told(db, job)))) == (5, {"None"})
    assert undecided() - before == 5
    assert str(policies.not_understood(db)).startswith("the active policy of 1 tenant needs a newer release")
    activated(db, f"{LOOSE}shadow: true\n")
    finished(db, keyring, [UNSAFE] * 5)
    assert undecided() - before == 10, "a shadow decides for nobody"
    with pytest.raises(RejectedError, match="has a condition that this release does not know"):
        redecide(db, policies.get(db, TENANT, version.label), Scope(TENANT))
    activated(db, LOOSE)
    finished(db, keyring, [UNSAFE] * 5)
    assert undecided() - before == 10
    assert policies.not_understood(db) is None, "it is not applied any more"


def test_decisions_go_with_their_jobs(db: Database, keyring: Keyring) -> None:
    activated(db, STRICT)
    job = finished_on(db, keyring, LONG_AGO)
    assert scalar(db, f"select count(*) from decision where job_id = {job.id}") == 2
    retention.purge(db, [job.id])
    assert retention.expire(db, "verdict", job.day)
    assert scalar(db, f"select count(*) from decision where job_id = {job.id}") == 0


def test_the_decider_of_a_version_is_made_once(db: Database) -> None:
    version = activated(db, STRICT)
    made = policies.decider(db, version.id)
    assert isinstance(made, Decider)
    assert policies.decider(db, version.id) is made
    assert of_value(version.document) == made.policy


def flagged(db: Database) -> list[tuple[str, dict[str, Any]]]:
    """The tenant and what is said of each event, in the order of commits."""
    with db.session() as connection:
        rows = connection.execute(
            """select t.name, o.subject from outbox o join tenant t on t.id = o.tenant_id
               where o.kind = 'verdict.flagged' order by o.id"""
        )
        return [(row.name, {name: value for name, value in row.subject.items() if name != "ord"}) for row in rows]


@pytest.mark.parametrize("shard_texts", [4, 40], ids=["in one statement", "by COPY"])
def test_who_listens_hears_of_shards_that_somebody_has_to_look_at(db: Database, keyring: Keyring, shard_texts: int) -> None:
    keys.create(db, keyring, name="x", tenant="acme")
    acme = keys.tenant_id(db, "acme")
    for tenant_id in (TENANT, acme):
        endpoints.create(db, keyring, tenant_id=tenant_id, name="r", url="http://127.0.0.1:1", kinds=["verdict.flagged"])
    n = shard_texts
    finished(db, keyring, [SAFE] * n + [UNSAFE] * n, shard_texts=n)
    activated(db, f"{LOOSE}shadow: true\n")
    finished(db, keyring, [SAFE] * n + [UNSAFE] * n, shard_texts=n)
    assert flagged(db) == [("default", {"unsafe": n})] * 2, "without a policy, and with a shadow, as before"
    activated(db, "name: r\ndefault: flag\nrules:\n  - {id: a, when: {severity: controversial}, action: review}\n")
    finished(db, keyring, [SAFE] * n + [UNSURE] * n + [failed("unparsed")] * n + [UNSAFE] * n, shard_texts=n)
    finished(db, keyring, [UNSAFE] * n, shard_texts=n, tenant_id=acme)
    assert flagged(db)[2:] == [
        ("default", {"unsafe": 0, "actions": {"flag": 0, "review": n, "block": 0}}),
        ("default", {"unsafe": 0, "actions": {"flag": 0, "review": n, "block": 0}}),
        ("default", {"unsafe": n, "actions": {"flag": n, "review": 0, "block": 0}}),
        ("acme", {"unsafe": n}),
    ], "a flag alone is nobody's work"
    before = len(flagged(db))
    job = submit(db, keyring, 4)
    old = took(db, job, 0, lease_s=-1)
    new = took(db, job, 0)
    rows, model_id = [Row(f"id{i}", UNSURE) for i in range(4)], models.register(db, MODEL)
    assert completion.finish(db, old, rows, model_id=model_id) is None
    assert len(flagged(db)) == before
    assert completion.finish(db, new, rows, model_id=model_id)
    assert flagged(db)[before:] == [("default", {"unsafe": 0, "actions": {"flag": 0, "review": 4, "block": 0}})]


def of(db: Database, job: JobView, *actions: str, **more: Any) -> list[int]:
    """The places of a filter's pages, put together."""
    cursor, partial, found = Cursor(), True, []
    while partial:
        page = verdicts.page(db, job, cursor, limit=7, wanted=Filter.of(action=actions, **more))
        assert {one.action for one in page.decided() if one} <= set(actions)
        assert len(page.rows) <= 7
        found += [row.seq for row in page.rows]
        cursor, partial = page.reached, page.has_more
    return found


def test_pages_of_an_action_have_what_the_policy_in_force_says(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "SHARDS_AT_ONCE", 3)
    rng = random.Random(5)
    judged = [any_judgement(rng) for _ in range(150)]
    job = finished(db, keyring, judged, shard_texts=10)
    assert [of(db, job, action) for action in ACTIONS] == [[]] * 4, "nobody has decided"
    first = activated(db, STRICT)
    redecide(db, first, Scope(TENANT, job.id))
    trial, _ = policies.add(db, TENANT, read("name: trial\ndefault: block\n"))
    redecide(db, trial, Scope(TENANT, job.id))
    redecide(db, activated(db, "name: hidden\ndefault: block\nshadow: true\n"), Scope(TENANT, job.id))
    second = activated(db, STRICT.replace("action: block", "action: flag").replace("action: flag}", "action: block}"))
    for version in (first, second, first):
        policies.activate(db, version)
        redecide(db, version, Scope(TENANT, job.id))
        actions = [one["action"] for one in told(db, job)]
        assert len(set(actions)) > 2
        for wanted in (("block",), ("review",), ("flag", "block"), ACTIONS):
            places = [seq for seq, action in enumerate(actions) if action in wanted]
            assert of(db, job, *wanted) == places
            exported = [row["seq"] for page in of_actions(verdicts.in_order(db, job), wanted) for row in page.fields()]
            assert exported == places
        unsafe = [seq for seq in of(db, job, "flag", "block") if judged[seq].severity.label == "unsafe"]
        assert of(db, job, "flag", "block", severity=["unsafe"]) == unsafe


def test_an_activation_between_reading_and_deciding_hands_out_no_text_under_another_action(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks, flags = activated(db, "name: a\ndefault: block\n"), activated(db, "name: b\ndefault: flag\n")
    job = finished(db, keyring, [SAFE] * 20)
    redecide(db, blocks, Scope(TENANT, job.id))
    policies.activate(db, blocks)
    decide = decisions.of_texts

    def late(*args: Any) -> Any:
        policies.activate(db, flags)
        return decide(*args)

    monkeypatch.setattr(decisions, "of_texts", late)
    page = verdicts.page(db, job, Cursor(), limit=7, wanted=Filter.of(action=["block"]))
    assert (page.rows, page.has_more, page.reached.seq) == ([], True, 6)
