"""Detections in PostgreSQL: written with their verdicts, shown alike by every face, read by policies, gone with their texts."""

import json
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from rich.console import Console

from guardfleet.cli import progress
from guardfleet.domain.detection import Detection, Outcome, failed
from guardfleet.domain.targets import Targets
from guardfleet.domain.verdict import Model, ServedBy
from guardfleet.errors import ConfigurationError
from guardfleet.jobs import redecide
from guardfleet.jobs.erase import Asked, erase
from guardfleet.policy.reading import read
from guardfleet.security.encryption import Keyring
from guardfleet.store import detections, verdicts
from guardfleet.store.detections import Detected
from guardfleet.store.jobs import retention, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.partitions import ensure_day
from guardfleet.store.policy import policies
from guardfleet.store.policy.decisions import Scope
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, handoff, leases, publishing
from guardfleet.store.shards.bisect import bisect
from guardfleet.store.shards.completion import Row
from guardfleet.store.shards.handoff import Provisional, Said
from guardfleet.store.shards.leases import Claim, Limits, Waits
from guardfleet.verdicts.detections import Codes, decode, encode, of_plain, shown, to_plain
from tests.services.judged import SAFE, UNSAFE
from tests.services.stored import LONG_AGO, MODEL, new_job, scalar, submit, took
from worker.dispatch.poison import give_up
from worker.moderation.outcome import Loaded, stored_rows

FINDER = Model("f", "1", "p", detector="finder", labels=("clear", "found"), neutral="clear")
TOPICS = Model("t", "1", "p", detector="topics", labels=("art", "sport", "war"))
FOUND = Detection(Outcome.LABELLED, "found", (0.25, 0.75), input_tokens=7)
CLEAR = Detection(Outcome.LABELLED, "clear", (0.9, 0.1), input_tokens=7)
SHORT = Detection(Outcome.TOO_SHORT, input_tokens=1)
BROKEN = failed("engine_failed", "it raises ValueError")
ENDS = [FOUND, CLEAR, SHORT, BROKEN]
BOTH: dict[str, Any] = {"name": "test", "detectors": "guard,finder", "brings_workers": True}
POLICY = """
name: strict
default: allow
errors: review
rules:
  - {id: written, when: {detectors: {finder: {scores: {found: {at_least: 0.75}}}}}, action: flag}
  - {id: short, when: {detectors: {finder: {label: too_short}}}, action: review}
  - {id: unsafe, when: {severity: unsafe}, action: block}
"""


def detected(db: Database, found: list[Detection], model: Model = FINDER, place: int = 1) -> Detected:
    return Detected(place, verdicts.register_model(db, model), model, found)


def finished(db: Database, keyring: Keyring, found: list[Detection], **asked: Any) -> JobView:
    """A job of a shard whose texts are safe, and of which the finder said this."""
    job = submit(db, keyring, len(found), shard_texts=len(found), new=new_job(**(BOTH | asked)))
    held = took(db, job, 0)
    digests = [keyring.digest(1, f"text {i}") for i in range(len(found))]
    rows = [Row(f"id{i}", SAFE, digest, {"user": "u"}) for i, digest in enumerate(digests)]
    assert completion.finish(db, held, rows, model_id=verdicts.register_model(db, MODEL), detected=[detected(db, found)])
    return views.get(db, job.public_id)


def any_codes(rng: random.Random, model: Model) -> Codes:
    """Codes of the table's columns, most of which no version writes."""
    n = len(model.labels)
    return Codes(
        rng.choice([0, 0, 0, 1, 2, 3, 4, -1]), rng.choice([None, 0, n - 1, n, -1]),
        rng.choice([None, [rng.random() for _ in range(n)], [0.5] * n, [1.0] * (n + 1), [float("nan")] * n, [1.5] * n]),
        rng.choice([0, 1, 2, 3, 4, 5, 9]), 3, 0, rng.choice([None, None, "engine_failed", "of another version"]),
        rng.choice([None, "it raises"]), rng.choice([None, {"windows": [[0, 5, "found"]], "rule": "max"}]),
        rng.choice([None, "because"]),
    )  # fmt: skip


def test_every_face_shows_what_is_stored_whatever_that_is(db: Database, keyring: Keyring) -> None:
    rng, n = random.Random(3), 1500
    job = finished(db, keyring, [CLEAR] * n)
    stored = [any_codes(rng, FINDER) for _ in range(n)]
    with db.begin() as connection:
        for seq, said in enumerate(stored):
            values = said._asdict() | {"evidence": None if said.evidence is None else Jsonb(said.evidence), "seq": seq}
            changed = ", ".join(f"{name} = %({name})s" for name in Codes._fields)
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
    assert Counter(said["finder"]["outcome"] for said in by_json)["labelled"] > 10
    for row, said in zip(rows, by_json, strict=True):
        one = said["finder"]
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
    ],
)
def test_a_detection_that_is_none_is_stored_as_an_error(found: Detection) -> None:
    assert decode(encode(found, FINDER), FINDER).error == "unreadable"


def test_each_text_is_in_one_count_of_its_detector(db: Database, keyring: Keyring) -> None:
    job = finished(db, keyring, [FOUND, FOUND, CLEAR, SHORT, BROKEN])
    assert job.detected == {"finder": {"found": 2, "clear": 1, "too_short": 1, "error": 1}}
    assert job.failed_detections == 1
    for say in (progress.progress, lambda job, _, to: progress.summary(job, {}, seconds=None, to=to)):
        seen = Console(record=True, width=200)
        say(job, None, to=seen)
        assert "finder: 2 found, 1 clear, 1 error, 1 too_short" in seen.export_text()
    assert len(job.models) == 2


def test_no_shard_is_finished_without_each_detectors_word(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 2, shard_texts=2, new=new_job(**BOTH))
    held, model_id = took(db, job, 0), verdicts.register_model(db, MODEL)
    rows = [Row("id0", SAFE), Row("id1", SAFE)]
    for wrong in ([], [detected(db, [CLEAR])], [detected(db, [CLEAR] * 2, place=2)], [detected(db, [CLEAR] * 2)] * 2):
        with pytest.raises(ValueError, match=r"answers|detections"):
            completion.finish(db, held, rows, model_id=model_id, detected=wrong)
    assert scalar(db, "select count(*) from verdict") == 0
    assert completion.finish(db, held, rows, model_id=model_id, detected=[detected(db, [CLEAR] * 2)])


def test_a_fenced_finish_writes_no_detection(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 1, shard_texts=1, new=new_job(**BOTH))
    late = took(db, job, 0, lease_s=-1)
    took(db, job, 0)
    found = [detected(db, [CLEAR])]
    assert completion.finish(db, late, [Row("x", SAFE)], model_id=verdicts.register_model(db, MODEL), detected=found) is None
    assert scalar(db, "select count(*) from detection") + scalar(db, "select count(*) from detected") == 0


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
    job = submit(db, keyring, 2, shard_texts=2, new=new_job(name="x", detectors="finder", brings_workers=True))
    held = leases.claim(db, job.id, 0, worker="w", lease_s=60, by=Waits("detector:finder", takes_any=False))
    assert held is not None
    said = Provisional(None, [], is_settled=True)
    texts = leases.load(db, keyring, held)
    rows = stored_rows(db, Loaded(held, texts, [b"0" * 16] * 2, None), said)
    assert completion.finish(db, held, rows, model_id=None, detected=[detected(db, [CLEAR, FOUND], place=0)])
    found = list(verdicts.export(db, views.get(db, job.public_id)))
    assert [(row["severity"], row["action"]) for row in found] == [("unrated", "review"), ("unrated", "flag")]


def test_detections_are_reused_by_model_and_policy_alone(db: Database, keyring: Keyring) -> None:
    finished(db, keyring, ENDS)
    held = took(db, submit(db, keyring, 4, shard_texts=4, new=new_job(**BOTH)), 0)
    digests = [keyring.digest(1, f"text {i}") for i in range(4)]
    mine = verdicts.register_model(db, FINDER)
    known = detections.known(db, digests, held, model_id=mine, model=FINDER, max_age_hours=1)
    assert {digests.index(digest): (said.label, said.served_by) for digest, said in known.items()} == {
        0: ("found", ServedBy.CACHE), 1: ("clear", ServedBy.CACHE), 2: (None, ServedBy.CACHE),
    }  # fmt: skip
    for changed in ({"policy": "q"}, {"revision": "2"}, {"detector": "other"}):
        other = Model(**{name: getattr(FINDER, name) for name in Model.__slots__} | changed)
        number = verdicts.register_model(db, other)
        assert number != mine
        assert detections.known(db, digests, held, model_id=number, model=other, max_age_hours=1) == {}


def test_the_same_revision_with_other_labels_is_refused(db: Database) -> None:
    verdicts.register_model(db, FINDER)
    with pytest.raises(ConfigurationError, match="served with other labels: clear, found"):
        verdicts.register_model(db, Model("f", "1", "p", detector="finder", labels=("found", "clear"), neutral="clear"))


def passed_on(db: Database, keyring: Keyring, n: int) -> tuple[JobView, Claim]:
    """A job's only shard after the guard has judged it: the second text is unsafe, the others are safe."""
    verdicts.register_model(db, FINDER)
    job = submit(db, keyring, n, shard_texts=n, new=new_job(**BOTH))
    judged = [UNSAFE if i == 1 else SAFE for i in range(n)]
    said = Provisional(verdicts.register_model(db, MODEL), judged, is_settled=True)
    assert handoff.pass_on(db, keyring, took(db, job, 0), said, to="detector:finder")
    held = leases.claim(db, job.id, 0, worker="w", lease_s=60, by=Waits("detector:finder", takes_any=False))
    assert held is not None
    return job, held


def test_only_the_next_detectors_worker_takes_a_shard_that_was_passed_on(db: Database, keyring: Keyring) -> None:
    job, held = passed_on(db, keyring, 2)
    leases.release(db, held)
    for wrong in (Waits("m", takes_any=True), Waits("detector:other", takes_any=False)):
        assert leases.claim(db, job.id, 0, worker="w", lease_s=60, by=wrong) is None
    assert leases.claim(db, job.id, 0, worker="w", lease_s=60, by=Waits("detector:finder", takes_any=False))


def test_a_detectors_worker_takes_no_shard_that_waits_for_a_guard(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 2, shard_texts=2)
    assert leases.claim(db, job.id, 0, worker="w", lease_s=60, by=Waits("detector:finder", takes_any=False)) is None


def test_halves_keep_what_was_said_of_their_texts(db: Database, keyring: Keyring) -> None:
    job, held = passed_on(db, keyring, 4)
    texts, first = handoff.load(db, keyring, held)
    assert first is not None
    with_more = Provisional(first.model_id, first.judgements, is_settled=True, models={3: 1}, said=[Said(1, 1, ENDS)])
    assert bisect(db, keyring, held, texts, with_more, limits=Limits(6, 5))
    for no, severities, ends, models in ((0, [0, 2], ENDS[:2], {}), (-1, [0, 0], ENDS[2:], {1: 1})):
        _, half = handoff.load(db, keyring, took(db, job, no))
        assert half is not None
        assert [int(judgement.severity) for judgement in half.judgements] == severities
        assert [said.outcome for said in half.said[0].detections] == [said.outcome for said in ends]
        assert half.models == models


def test_a_shard_that_kills_every_detector_keeps_its_verdicts(db: Database, keyring: Keyring) -> None:
    job, held = passed_on(db, keyring, 2)
    leases.release(db, held)
    for _ in range(2):  # the shard, then its halves
        with db.begin() as connection:
            connection.execute("update shard set claims = 99")
        for key in publishing.exhausted(db, Limits(6, 5)):
            give_up(db, keyring, key, Limits(6, 5), lease_s=60)
    done = views.get(db, job.public_id)
    assert (done.done, done.safe, done.unsafe, done.error) == (2, 1, 1, 0)
    assert done.detected == {"finder": {"error": 2}}
    found = [row["detections"]["finder"]["error"]["code"] for row in verdicts.export(db, done)]
    assert found == ["abandoned", "abandoned"]


def test_an_erasure_takes_the_models_words_and_leaves_the_counts(db: Database, keyring: Keyring) -> None:
    said = replace(FOUND, reason="he wrote of Ann", evidence={"windows": [[0, 3, "found"]], "rule": "max"})
    job = finished(db, keyring, [said, replace(BROKEN, error_detail="Ann"), said])
    erase(db, keyring, Asked(1, Targets(ids=("id0", "id1")), job.label))
    with db.begin() as connection:
        rows = connection.execute("select digest, reason, evidence, error, error_detail from detection order by seq").fetchall()
    assert [tuple(row) for row in rows[:2]] == [(None,) * 5, (None, None, None, "erased", None)]
    assert rows[2].reason == "he wrote of Ann"
    assert views.get(db, job.public_id).detected == {"finder": {"found": 2, "error": 1}}


def test_an_erasure_takes_what_was_said_so_far(db: Database, keyring: Keyring) -> None:
    job, held = passed_on(db, keyring, 2)
    said = Provisional(1, [SAFE, UNSAFE], is_settled=True, said=[Said(1, 1, [replace(FOUND, reason="he wrote of Ann")] * 2)])
    with db.begin() as connection:
        handoff.write(connection, keyring, held, said, shard_no=0)
    erase(db, keyring, Asked(1, Targets(ids=("id0",)), job.label))
    _, left = handoff.load(db, keyring, took(db, job, 0))
    assert left is not None
    assert [judgement.error for judgement in left.judgements] == ["erased", None]
    assert [(one.error, one.reason) for one in left.said[0].detections] == [("erased", None), (None, "he wrote of Ann")]


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
