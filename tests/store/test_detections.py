"""Detections in PostgreSQL: written with their verdicts, shown alike by every face, read by policies, gone with their texts."""

import json
import random
from collections import Counter
from dataclasses import replace

import pytest
from psycopg.types.json import Jsonb
from rich.console import Console

from guardfleet.cli import progress
from guardfleet.domain.detection import Detection, Outcome
from guardfleet.domain.targets import Targets
from guardfleet.domain.verdict import Model, ServedBy
from guardfleet.errors import ConfigurationError, RejectedError
from guardfleet.jobs import redecide, sampling
from guardfleet.jobs.assessment import assess
from guardfleet.jobs.erase import Asked, erase
from guardfleet.policy.reading import read
from guardfleet.security.encryption import Keyring
from guardfleet.store import detections, models, verdicts
from guardfleet.store.jobs import retention, views
from guardfleet.store.labels import samples
from guardfleet.store.partitions import ensure_day
from guardfleet.store.policy import policies
from guardfleet.store.policy.decisions import Scope
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion
from guardfleet.store.shards.completion import Row
from guardfleet.verdicts.detections import Codes, decode, encode, of_plain, shown, to_plain
from tests.services.detected import BOTH, BROKEN, CLEAR, ENDS, FINDER, FOUND, SHORT, TOPICS, finished, without_guard
from tests.services.judged import SAFE
from tests.services.stored import LONG_AGO, MODEL, new_job, scalar, submit, took

POLICY = """
name: strict
default: allow
errors: review
rules:
  - {id: written, when: {detectors: {finder: {scores: {found: {at_least: 0.75}}}}}, action: flag}
  - {id: short, when: {detectors: {finder: {label: too_short}}}, action: review}
  - {id: unsafe, when: {severity: unsafe}, action: block}
"""


def any_codes(rng: random.Random, model: Model) -> Codes:
    """Codes of the table's columns, most of which no version writes."""
    n = len(model.labels)
    raw = [rng.random() for _ in range(n)]
    scores = rng.choice([
        None, raw, [score / sum(raw) for score in raw], [score / sum(raw) for score in raw], [0.5] * n, [0.1] * n, [1.0] * (n + 1),
        [float("nan")] * n, [1.5] * n,
    ])  # fmt: skip
    likeliest = raw.index(max(raw))
    return Codes(
        rng.choice([0, 0, 0, 1, 1, 2, 3, 4, -1]), rng.choice([likeliest, likeliest, None, 0, n - 1, n, -1]), scores,
        rng.choice([0, 1, 2, 3, 4, 5, 9]), 3, 0, rng.choice([None, None, "engine_failed", "of another version"]),
        rng.choice([None, "it raises"]), rng.choice([None, {"windows": [[0, 5, "found"]], "rule": "max"}]),
        rng.choice([None, "because"]),
    )  # fmt: skip


def test_every_face_shows_what_is_stored_whatever_that_is(db: Database, keyring: Keyring) -> None:
    rng, n = random.Random(3), 3000
    job = finished(db, keyring, [CLEAR] * n)
    ids = {models.register(db, model): model for model in (FINDER, TOPICS)}
    by = [list(ids)[seq % 2] for seq in range(n)]
    stored = [any_codes(rng, ids[model_id]) for model_id in by]
    with db.begin() as connection:
        for seq, said in enumerate(stored):
            values = said._asdict() | {
                "evidence": None if said.evidence is None else Jsonb(said.evidence),
                "seq": seq,
                "model_id": by[seq],
            }
            changed = ", ".join(f"{name} = %({name})s" for name in (*Codes._fields, "model_id"))
            connection.execute(f"update detection set {changed} where seq = %(seq)s", values)
        rows = connection.execute(
            "select outcome, label, score, scores, error, models_words from detections order by seq"
        ).fetchall()
        whole = connection.scalars("select detections from verdicts order by seq")
    pages = list(verdicts.in_order(db, job))
    by_json = [json.loads(said)["detections"] for page in pages for said in page.json_objects()]
    by_fields = [row["detections"] for page in pages for row in page.fields()]
    assert by_json == by_fields
    for one, other in zip(whole, by_json, strict=True):
        assert one == other
    ends = Counter((ids[by[seq]].detector, said["finder"]["outcome"]) for seq, said in enumerate(by_json))
    assert ends["finder", "labelled"] > 10
    assert ends["topics", "labelled"] > 10
    assert ends["topics", "unlabelled"] > 3
    details = {one["error"]["detail"] for said in by_json for one in said.values() if one["error"]}
    assert details >= {
        "its scores do not add up to 1", "a label whose score is not the highest",
        "a label that was not found, or one that was found and is not there",
    }  # fmt: skip
    for row, said in zip(rows, by_json, strict=True):
        (one,) = said.values()
        assert (row.outcome, row.label, row.scores) == (one["outcome"], one["label"], one["scores"])
        assert row.error == (one["error"] and one["error"]["code"])
        assert row.score == (one["scores"][one["label"]] if one["label"] else None)
        assert row.models_words == one.get("models_words")


@pytest.mark.parametrize("model", [FINDER, TOPICS], ids=lambda model: model.detector)
def test_what_contradicts_itself_is_an_error_and_the_rest_is_kept(model: Model) -> None:
    rng, kept = random.Random(7), 0
    for _ in range(3000):
        codes = any_codes(rng, model)
        found = decode(codes, model)
        again = encode(found, model)
        assert decode(again, model) == found
        assert of_plain(json.loads(json.dumps(to_plain(found)))) == found
        assert (found.outcome is Outcome.ERROR) == (found.error is not None) == (shown(found, model)["error"] is not None)
        kept += again == codes
    assert kept > 10


@pytest.mark.parametrize(
    "found",
    [
        Detection(Outcome.LABELLED, "safe", (0.5, 0.5)),
        Detection(Outcome.LABELLED, "found"),
        Detection(Outcome.LABELLED, "found", (0.5, float("inf"))),
        Detection(Outcome.UNLABELLED, None, (0.5, 0.5)),
        Detection(Outcome.ERROR),
        Detection(Outcome.TOO_SHORT, "clear"),
        Detection(Outcome.LABELLED, "found", (0.7, 0.3)),
        Detection(Outcome.LABELLED, "found", (0.6, 0.7)),
    ],
)
def test_a_detection_that_is_none_is_stored_as_an_error(found: Detection) -> None:
    assert decode(encode(found, FINDER), FINDER).error == "unreadable"


@pytest.mark.parametrize(
    "found",
    [
        Detection(Outcome.LABELLED, "art", (0.4, 0.1, 0.2)),
        Detection(Outcome.LABELLED, "art", (0.6, 0.7, 0.2)),
        Detection(Outcome.UNLABELLED, None, (0.6, 0.1, 0.2)),
    ],
)
def test_labels_that_are_found_apart_are_those_with_a_score_of_a_half(found: Detection) -> None:
    assert decode(encode(found, TOPICS), TOPICS).error == "unreadable"


def test_a_score_that_is_a_half_only_as_it_is_stored_makes_no_error() -> None:
    for said in (Detection(Outcome.UNLABELLED, None, (0.5, 0.1, 0.2)), Detection(Outcome.LABELLED, "art", (0.5, 0.5, 0.2))):
        assert decode(encode(said, TOPICS), TOPICS) == said


def test_each_text_is_in_one_count_of_its_detector(db: Database, keyring: Keyring) -> None:
    job = finished(db, keyring, [FOUND, FOUND, CLEAR, SHORT, BROKEN])
    assert job.detected == {"finder": {"found": 2, "clear": 1, "too_short": 1, "error": 1}}
    assert job.failed_detections == 1
    for say in (progress.progress, lambda job, _, to: progress.summary(job, {}, seconds=None, to=to)):
        seen = Console(record=True, width=200)
        say(job, None, to=seen)
        assert "finder: 2 found, 1 clear, 1 error, 1 too_short" in seen.export_text()
    assert len(job.models) == 2


def test_a_policy_decides_by_detections_as_they_come_and_later(db: Database, keyring: Keyring) -> None:
    version, _ = policies.add(db, 1, read(POLICY))
    before = finished(db, keyring, ENDS)
    policies.activate(db, version)
    live = finished(db, keyring, ENDS)
    redecide.redecide(db, version, Scope(1, before.id))
    for job in (live, before):
        rows = list(verdicts.export(db, views.get(db, job.public_id)))
        assert [row["action"] for row in rows] == ["flag", "allow", "review", "review"]
        assert [row["decision"]["rule"] for row in rows] == ["written", None, "short", "short"]


def test_a_text_that_no_guard_was_asked_about_is_not_allowed_by_default(db: Database, keyring: Keyring) -> None:
    version, _ = policies.add(db, 1, read(POLICY))
    policies.activate(db, version)
    job = without_guard(db, keyring, [CLEAR, FOUND])
    found = list(verdicts.export(db, job))
    assert [(row["severity"], row["action"]) for row in found] == [("unrated", "review"), ("unrated", "flag")]


def test_a_job_that_did_not_ask_the_guard_is_neither_evaluated_nor_drawn_by_doubt(db: Database, keyring: Keyring) -> None:
    job = without_guard(db, keyring, [CLEAR, FOUND, SHORT, BROKEN])
    with pytest.raises(RejectedError, match="did not ask the guard, so it has no verdicts to evaluate"):
        assess(db, job)
    with pytest.raises(RejectedError, match="did not ask the guard, so no text of it has probabilities"):
        sampling.draw(db, job, sampling.plan_of(2, ["uncertain"], slice_key=None, seed=1), slice_key=None)
    drawn = sampling.draw(db, job, sampling.plan_of(2, ["random"], slice_key=None, seed=1), slice_key=None)
    assert sum(len(page) for page in samples.pages(db, drawn)) == 2


def test_a_detection_that_was_asked_for_and_is_gone_makes_no_action_milder(db: Database, keyring: Keyring) -> None:
    version, _ = policies.add(db, 1, read(POLICY))
    job = finished(db, keyring, [CLEAR, CLEAR])
    with db.begin() as connection:
        connection.execute("delete from detection where seq = 1")
    redecide.redecide(db, version, Scope(1, job.id))
    policies.activate(db, version)
    assert [row["action"] for row in verdicts.export(db, views.get(db, job.public_id))] == ["allow", "review"]


def test_a_rule_that_reads_a_detector_holds_for_no_text_whose_job_did_not_ask_it(db: Database, keyring: Keyring) -> None:
    version, _ = policies.add(db, 1, read(POLICY))
    job = submit(db, keyring, 1, shard_texts=1)
    assert completion.finish(db, took(db, job, 0), [Row("id0", SAFE)], model_id=models.register(db, MODEL))
    redecide.redecide(db, version, Scope(1, job.id))
    policies.activate(db, version)
    live = submit(db, keyring, 1, shard_texts=1)
    assert completion.finish(db, took(db, live, 0), [Row("id0", SAFE)], model_id=models.register(db, MODEL))
    for one in (job, live):
        assert [row["action"] for row in verdicts.export(db, views.get(db, one.public_id))] == ["allow"]


def test_detections_are_reused_by_model_and_policy_alone(db: Database, keyring: Keyring) -> None:
    finished(db, keyring, ENDS)
    held = took(db, submit(db, keyring, 4, shard_texts=4, new=new_job(**BOTH)), 0)
    digests = [keyring.digest(1, f"text {i}") for i in range(4)]
    mine = models.register(db, FINDER)
    known = detections.known(db, digests, held, model_id=mine, model=FINDER, max_age_hours=1)
    assert {digests.index(digest): (said.label, said.served_by) for digest, said in known.items()} == {
        0: ("found", ServedBy.CACHE), 1: ("clear", ServedBy.CACHE), 2: (None, ServedBy.CACHE),
    }  # fmt: skip
    for changed in ({"policy": "q"}, {"revision": "2"}, {"detector": "other"}):
        other = Model(**{name: getattr(FINDER, name) for name in Model.__slots__} | changed)
        number = models.register(db, other)
        assert number != mine
        assert detections.known(db, digests, held, model_id=number, model=other, max_age_hours=1) == {}


def test_the_same_revision_with_other_labels_is_refused(db: Database) -> None:
    models.register(db, FINDER)
    with pytest.raises(ConfigurationError, match="served with other labels: clear, found"):
        models.register(db, Model("f", "1", "p", detector="finder", labels=("found", "clear"), neutral="clear"))


def test_an_erasure_takes_the_models_words_and_leaves_the_counts(db: Database, keyring: Keyring) -> None:
    said = replace(FOUND, reason="he wrote of Ann", evidence={"windows": [[0, 3, "found"]], "rule": "max"})
    job = finished(db, keyring, [said, replace(BROKEN, error_detail="Ann"), said])
    erase(db, keyring, Asked(1, Targets(ids=("id0", "id1")), job.label))
    with db.begin() as connection:
        rows = connection.execute("select digest, reason, evidence, error, error_detail from detection order by seq").fetchall()
    assert [tuple(row) for row in rows[:2]] == [(None,) * 5, (None, None, None, "erased", None)]
    assert rows[2].reason == "he wrote of Ann"
    assert views.get(db, job.public_id).detected == {"finder": {"found": 2, "error": 1}}


def test_detections_expire_with_their_verdicts(db: Database, keyring: Keyring) -> None:
    job = finished(db, keyring, ENDS)
    with db.begin() as connection:
        ensure_day(connection, LONG_AGO)
        for table, column in (
            ("job", "id"),
            ("shard", "job_id"),
            ("shard_payload", "job_id"),
            ("verdict", "job_id"),
            ("detection", "job_id"),
        ):
            connection.execute(f"update {table} set day = '{LONG_AGO}' where {column} = {job.id}")
        connection.execute("update job set finished_at = now() - interval '9 months'")
    retention.purge(db, retention.purgeable(db, older_than_hours=1))
    due = retention.over(db, verdict_days=30)
    assert {table for table, day in due if day == LONG_AGO} == {"verdict", "detection", "shard_payload"}
    assert all(retention.expire(db, table, day) for table, day in due)
    assert scalar(db, "select count(*) from detection") + scalar(db, "select count(*) from detected") == 0
    assert scalar(db, f"select to_regclass('detection_{LONG_AGO:%Y%m%d}') is null")
