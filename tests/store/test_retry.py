"""Retries on real PostgreSQL: exactly the failed texts, each in one retry at a time, and every text with one newest verdict."""

import threading
from collections import Counter
from typing import Any

import pytest

from guardfleet.domain.detection import Detection, Outcome, failed
from guardfleet.domain.states import JobState
from guardfleet.domain.targets import Targets
from guardfleet.domain.verdict import Judgement, Model, failure
from guardfleet.errors import RejectedError
from guardfleet.jobs import retry
from guardfleet.jobs.erase import Asked, erase
from guardfleet.jobs.intake import Intake
from guardfleet.jobs.retry import judge_again
from guardfleet.policy.reading import read
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import audit, models, newest, verdicts
from guardfleet.store.audit import Wanted
from guardfleet.store.detections import Detected
from guardfleet.store.jobs import control, intake, retention, retries, unprocessed, views
from guardfleet.store.jobs.retries import OpenRetryError
from guardfleet.store.jobs.views import JobView
from guardfleet.store.policy import policies
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, leases
from guardfleet.store.shards.completion import Row
from guardfleet.store.shards.handoff import Provisional
from guardfleet.store.shards.leases import Waits
from tests.services.judged import SAFE, UNSAFE
from tests.services.patience import patience
from tests.services.stored import MODEL, new_job, scalar, submit, took
from worker.moderation.outcome import Loaded, stored_rows

ENGINE, ABANDONED = failure("engine_failed", "x"), failure("abandoned", "x")
SETTINGS = load_settings(shard_texts=4, webhook_allow_networks=("127.0.0.0/8",))


def judge(db: Database, keyring: Keyring, job: JobView, say: dict[str, Judgement] | Judgement = SAFE) -> JobView:
    """Judge all shards that are ready: each id as told, the others safe."""
    model_id = models.register(db, MODEL)
    with db.session() as connection:
        numbers = connection.scalars(f"select shard_no from shard where job_id = {job.id} and state = 0 order by shard_no")
    for no in numbers:
        held = took(db, job, no)
        rows = [
            Row(row.id, say if isinstance(say, Judgement) else say.get(row.id, SAFE), metadata=row.metadata)
            for row in leases.load(db, keyring, held)
        ]
        completion.finish(db, held, rows, model_id=model_id, device_s=0.5)
    return views.get(db, job.public_id)


def failed_job(db: Database, keyring: Keyring, n: int = 30, **asked: Any) -> JobView:
    """An ended job: of every ten texts the first failed in the engine, the second was abandoned."""
    with Intake(db, keyring, SETTINGS, new_job(**asked)) as taking:
        taking.add_all((i + 1, PayloadRow(f"id{i}", f"text {i}", {"place": i})) for i in range(n))
        job = taking.seal()
    say = {f"id{i}": ENGINE if i % 10 == 0 else ABANDONED for i in range(n) if i % 10 < 2}
    return judge(db, keyring, job, say)


def again(db: Database, keyring: Keyring, job: JobView, *codes: str) -> JobView:
    return judge_again(db, keyring, SETTINGS, job, codes).job


def test_a_retry_is_in_the_audit_trail(db: Database, keyring: Keyring) -> None:
    job = failed_job(db, keyring)
    before = len(list(audit.events(db, Wanted())))
    made = again(db, keyring, job)
    new = list(audit.events(db, Wanted()))[before:]
    assert {(event.action, event.subject) for event in new} == {("job.create", made.label), ("job.retry", job.label)}


def severities(db: Database, job: JobView, **asked: Any) -> dict[str, str]:
    """The newest verdict of each text by its id; an id that comes twice fails."""
    pages = newest.with_retries(db, job, **asked)
    found = [(row["id"], row["severity"]) for page in pages for row in page.fields()]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_exactly_the_failed_texts_are_judged_again_once(db: Database, keyring: Keyring) -> None:
    job = failed_job(db, keyring)
    made = again(db, keyring, job)
    assert (made.total, made.name, made.retry_of, made.state) == (6, job.name, job.public_id, JobState.RUNNING)
    assert views.get(db, job.public_id).retries == [made.public_id]
    done = judge(db, keyring, made, UNSAFE)
    assert (done.state, done.unsafe) == (JobState.COMPLETED, 6)
    rows = [(row["id"], row["metadata"]) for row in verdicts.export(db, done)]
    assert rows == [(f"id{i}", {"place": i}) for i in (0, 1, 10, 11, 20, 21)]
    assert Counter(severities(db, job).values()) == {"safe": 24, "unsafe": 6}
    assert [row["seq"] for page in newest.with_retries(db, job) for row in page.fields()] == [*range(30)]
    with pytest.raises(RejectedError, match=r"of 6 failed texts of job_.*, 6 got a verdict from a retry"):
        again(db, keyring, views.get(db, job.public_id))


def test_only_the_errors_that_are_named_and_none_twice_at_a_time(db: Database, keyring: Keyring) -> None:
    job = failed_job(db, keyring)
    first = again(db, keyring, job, "engine_failed")
    assert first.total == 3
    rest = again(db, keyring, job)  # the others: those of the open retry are left out
    assert rest.total == 3
    assert scalar(db, "select count(*) = count(distinct of_seq) from retried")
    with pytest.raises(RejectedError, match=r"6 are in job_.*, which has not ended"):
        again(db, keyring, job, "abandoned", "engine_failed")
    judge(db, keyring, first, {"id10": ABANDONED})
    once_more = again(db, keyring, job, "abandoned")  # what the newest verdict says
    assert [row.id for row in leases.load(db, keyring, took(db, once_more, 0))] == ["id10"]
    with pytest.raises(RejectedError, match=r"there is no error code 'odd'; use one of unparsed, too_long"):
        again(db, keyring, job, "odd")


def test_the_same_retry_again_is_the_same_job_until_it_has_ended(db: Database, keyring: Keyring) -> None:
    job = failed_job(db, keyring)
    made = judge_again(db, keyring, SETTINGS, job, ["abandoned", "engine_failed"])
    same = judge_again(db, keyring, SETTINGS, job, ["engine_failed", "abandoned", "abandoned"])
    assert (made.is_new, same.is_new, same.job.id) == (True, False, made.job.id)
    judge(db, keyring, made.job, ENGINE)
    newer = judge_again(db, keyring, SETTINGS, job, ["abandoned", "engine_failed"])
    assert (newer.is_new, newer.job.total) == (True, 6)
    assert severities(db, job)["id0"] == "error"


def test_retries_at_the_same_moment_share_the_texts_out(database_url: str, db: Database, keyring: Keyring) -> None:
    job = failed_job(db, keyring, 400)
    together, made = threading.Barrier(6), []

    def run(*codes: str) -> None:
        own = Database(database_url, pool_size=2)
        together.wait(patience(20))
        while True:
            try:
                made.append(judge_again(own, keyring, SETTINGS, job, codes).job.id)
            except OpenRetryError:
                continue
            except RejectedError as error:  # all are in the others' by then
                assert "which has not ended" in str(error)  # noqa: PT017
            break
        own.close()

    asked = [(), (), ("abandoned",), ("abandoned",), ("engine_failed",), ("engine_failed",)]
    threads = [threading.Thread(target=run, args=codes) for codes in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience(60))
    assert made
    assert scalar(db, "select count(*) from retried") == 80
    assert scalar(db, "select count(distinct of_seq) from retried") == 80
    assert scalar(db, "select sum(total) from job where retry_of is not null") == 80
    assert scalar(db, "select count(*) from job where retry_of is not null and total = 0") == 0
    assert scalar(db, "select count(*) from job where retry_of is not null") == len(set(made)) <= 3


def test_texts_that_another_retry_took_since_they_were_counted_are_left_to_it(db: Database, keyring: Keyring) -> None:
    job = failed_job(db, keyring)
    some, all_of = retry.wanted(db, keyring, job, ["abandoned"]), retry.wanted(db, keyring, job)
    taken = again(db, keyring, job, "engine_failed")
    rest = retry.start(db, keyring, SETTINGS, all_of)
    assert (all_of.texts, rest.is_new, rest.job.total) == (6, True, 3)
    with pytest.raises(RejectedError, match=rf"of 6 failed texts of .*, 6 are in {taken.label}, {rest.job.label}, which has not"):
        retry.start(db, keyring, SETTINGS, some)
    assert scalar(db, "select count(*) from job where retry_of is not null") == 2


def test_texts_that_a_retry_took_while_they_were_counted_are_left_to_it(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = failed_job(db, keyring)
    cut_off(db, keyring, monkeypatch, job, pieces=0)
    asked = retry.wanted(db, keyring, job, ["abandoned"])
    assert asked.texts == 3, "the retry of all texts has begun, and has taken none"
    with db.begin() as connection:
        connection.execute("update job set intake_lease_until = now() - interval '1 s' where retry_of is not null")
    assert again(db, keyring, job).total == 6
    with pytest.raises(RejectedError, match=r"6 are in job_"):
        retry.start(db, keyring, SETTINGS, asked)


def test_a_retry_that_ended_since_it_was_looked_up_is_not_made_again_without_texts(db: Database, keyring: Keyring) -> None:
    job = failed_job(db, keyring)
    first = again(db, keyring, job)
    asked = retry.wanted(db, keyring, job)
    assert asked.earlier is not None
    judge(db, keyring, first)
    with pytest.raises(RejectedError, match=r"6 got a verdict from a retry"):
        retry.start(db, keyring, SETTINGS, asked)
    assert scalar(db, "select count(*) from job where retry_of is not null") == 1


def cut_off(db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch, job: JobView, *, pieces: int = 3) -> None:
    """Begin a retry of all failed texts that is interrupted after some pieces of four."""
    write, written = intake.write_piece, []

    def dies(*args: Any, **named: Any) -> None:
        if len(written) == pieces:
            raise KeyboardInterrupt
        written.append(write(*args, **named))

    with monkeypatch.context() as broken:
        broken.setattr("guardfleet.jobs.intake.COMMIT_SHARDS", 1)
        broken.setattr(intake, "write_piece", dies)
        with pytest.raises(KeyboardInterrupt):
            again(db, keyring, job)


def test_a_retry_that_was_cut_off_is_resumed_by_the_same_call(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "SPAN", 50)
    job = failed_job(db, keyring, 200)
    cut_off(db, keyring, monkeypatch, job)
    assert scalar(db, "select count(*) from retried") == 12
    with db.begin() as connection:
        connection.execute("update job set intake_lease_until = now() + interval '1 hour' where retry_of is not null")
    monkeypatch.setattr(retry, "WAITS_S", 0.5)
    held = judge_again(db, keyring, SETTINGS, job)  # somebody may still be at it
    assert (held.is_new, held.job.state) == (False, JobState.INGESTING)
    with pytest.raises(OpenRetryError, match=r"another retry of the same job is being prepared"):
        again(db, keyring, job, "abandoned")
    with db.begin() as connection:
        connection.execute("update job set intake_lease_until = now() - interval '1 s' where retry_of is not null")
    resumed = judge_again(db, keyring, SETTINGS, job)
    assert (resumed.job.id, resumed.job.total, resumed.job.state) == (held.job.id, 40, JobState.RUNNING)
    judge(db, keyring, resumed.job, UNSAFE)
    assert Counter(severities(db, job).values()) == {"safe": 160, "unsafe": 40}


def test_a_retry_that_was_killed_a_moment_ago_is_waited_for_and_resumed(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "SPAN", 50)
    job = failed_job(db, keyring, 200)
    cut_off(db, keyring, monkeypatch, job)
    with db.begin() as connection:
        connection.execute("update job set intake_lease_until = now() + interval '1 s' where retry_of is not null")
    resumed = judge_again(db, keyring, SETTINGS, job)
    assert (resumed.job.total, resumed.job.state) == (40, JobState.RUNNING)


def test_another_retry_takes_the_place_of_one_that_was_cut_off(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = failed_job(db, keyring)
    cut_off(db, keyring, monkeypatch, job, pieces=1)
    assert again(db, keyring, job, "abandoned").total == 3
    assert [one.state for one in views.page(db, tenant_id=1, after=None, limit=2)] == [JobState.RUNNING, JobState.FAILED]


def test_what_a_retry_left_out_is_retried_by_the_next_one(db: Database, keyring: Keyring) -> None:
    job = failed_job(db, keyring)
    made = again(db, keyring, job)
    judge(db, keyring, views.get(db, made.public_id), {"id0": ENGINE})
    second = again(db, keyring, views.get(db, made.public_id))  # a retry's own failed text
    assert (second.total, second.retry_of) == (1, job.public_id)
    control.cancel(db, second.id)
    third = again(db, keyring, job)
    assert third.total == 1
    judge(db, keyring, third, UNSAFE)
    assert severities(db, job)["id0"] == "unsafe"
    assert severities(db, views.get(db, made.public_id)) == {"id0": "unsafe"} | {f"id{i}": "safe" for i in (1, 10, 11, 20, 21)}
    assert severities(db, job, min_severity=2) == {"id0": "unsafe"}


def test_what_cannot_be_retried_is_said_with_its_counts(db: Database, keyring: Keyring) -> None:
    with Intake(db, keyring, SETTINGS, new_job()) as taking:
        taking.add_all((i + 1, PayloadRow(f"id{i}", "x")) for i in range(5))
        fine = taking.seal()
    with pytest.raises(RejectedError, match=r"has not ended"):
        again(db, keyring, fine)
    with pytest.raises(RejectedError, match=r"has no failed texts"):
        again(db, keyring, judge(db, keyring, fine))
    job = failed_job(db, keyring)
    with pytest.raises(RejectedError, match=r"of 6 failed texts of .*, 6 have another error than too_long"):
        again(db, keyring, job, "too_long")
    retention.purge(db, [job.id])
    with pytest.raises(RejectedError, match=r"were purged on .*: 6 failed texts cannot be judged again"):
        again(db, keyring, views.get(db, job.public_id))


def test_a_damaged_shard_costs_its_own_texts(db: Database, keyring: Keyring) -> None:
    job = failed_job(db, keyring)
    with db.begin() as connection:
        connection.execute(f"update shard_payload set blob = '\\x01' where job_id = {job.id} and shard_no = 0")
    made = again(db, keyring, job)
    assert (made.total, made.rejected) == (4, 2)
    assert [(line["line"], line["code"]) for line in unprocessed.refused(db, made)] == [(1, "text_gone"), (2, "text_gone")]


def test_the_options_and_the_callback_go_along(db: Database, keyring: Keyring) -> None:
    asked = {
        "priority": 7, "use_cache": False, "text_retention_hours": 2.5, "completion_window": "90m", "metadata": {"team": "a"},
        "confidence_threshold": 0.75, "callback_url": "http://127.0.0.1:9/hook", "callback_secret": "whsec_" + "A" * 32,
    }  # fmt: skip
    job = failed_job(db, keyring, **asked)
    made = again(db, keyring, job)
    columns = "priority, reuse, purge_hours, completion_window, metadata, sure, lane, strict, endpoint"
    rows = f"select count(distinct ({columns})) from job where id in ({job.id}, {made.id})"
    assert scalar(db, rows) == 1
    assert scalar(db, f"select expires_at is not null from job where id = {made.id}")
    assert scalar(db, "select count(distinct url) from endpoint") == 1
    assert retries.options_of(db, keyring, made)[1] == asked["callback_secret"]


def test_texts_are_kept_while_a_retry_reads_them(db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    job = failed_job(db, keyring, text_retention_hours=0)
    assert retention.purgeable(db, older_than_hours=1) == [job.id]
    cut_off(db, keyring, monkeypatch, job, pieces=1)
    assert retention.purgeable(db, older_than_hours=1) == []
    assert retention.purge(db, [job.id]) == 0
    again(db, keyring, job)
    assert retention.purge(db, [job.id]) == 1


def test_device_seconds_add_up_to_a_cost(db: Database, keyring: Keyring) -> None:
    job = failed_job(db, keyring)
    assert job.device_s == pytest.approx(4.0)  # 8 shards
    assert (job.cost(900.0), job.cost(None)) == (pytest.approx(1.0), None)


def test_a_retry_outlives_the_job_that_it_is_of(db: Database, keyring: Keyring) -> None:
    job = failed_job(db, keyring)
    made = judge(db, keyring, again(db, keyring, job), {"id0": ENGINE})
    with db.begin() as connection:
        connection.execute(f"update job set day = day - 100 where id = {job.id}")
        day = connection.scalar(f"select day from job where id = {job.id}")
        retention._forget_jobs(connection, day)
    made = views.get(db, made.public_id)
    assert (made.retry_of, made.first_id) == (None, None)
    assert again(db, keyring, made).retry_of == made.public_id


FINDER = Model("f", "1", "p", detector="finder", labels=("clear", "found"), neutral="clear")
FOUND, BROKEN, LOST = Detection(Outcome.LABELLED, "found", (0.25, 0.75)), failed("engine_failed", "x"), failed("abandoned", "x")
CLEAR, ODD = Detection(Outcome.LABELLED, "clear", (0.9, 0.1)), failed("unparsed", "x")


def detect(db: Database, keyring: Keyring, job: JobView, judged: dict[str, Judgement], found: dict[str, Detection]) -> JobView:
    """Finish the shards of a job of guard and finder: each id as told, the others safe and clear."""
    model_id, finder_id = models.register(db, MODEL), models.register(db, FINDER)
    with db.session() as connection:
        numbers = connection.scalars(f"select shard_no from shard where job_id = {job.id} and state = 0 order by shard_no")
    for no in numbers:
        held = took(db, job, no)
        texts = leases.load(db, keyring, held)
        said = Detected(1, finder_id, FINDER, [found.get(row.id, CLEAR) for row in texts])
        rows = [Row(row.id, judged.get(row.id, SAFE)) for row in texts]
        assert completion.finish(db, held, rows, model_id=model_id, detected=[said])
    return views.get(db, job.public_id)


def detected_job(db: Database, keyring: Keyring) -> JobView:
    """An ended job of ten: the verdict of id1 failed, the detections of id2 and id7, and both of id4."""
    models.register(db, FINDER)
    job = submit(db, keyring, 10, new=new_job(detectors="guard,finder"))
    judged, found = {"id1": ENGINE, "id4": ABANDONED, "id6": UNSAFE}, {"id2": BROKEN, "id4": ODD, "id7": LOST, "id0": FOUND}
    return detect(db, keyring, job, judged, found)


def union(db: Database, job: JobView, **asked: Any) -> dict[str, tuple[str, str | None]]:
    """The newest severity of each text, and what the finder said."""
    rows = [row for page in newest.with_retries(db, job, **asked) for row in page.fields()]
    return {row["id"]: (row["severity"], row["detections"]["finder"]["label"]) for row in rows}


def test_a_text_that_a_detector_failed_on_is_judged_again_and_shown_with_what_was_said_then(db: Database, keyring: Keyring) -> None:
    job = detected_job(db, keyring)
    assert (job.error, job.failed_detections) == (2, 3)
    made = again(db, keyring, job)
    assert (made.total, made.detectors) == (4, job.detectors)
    with pytest.raises(RejectedError, match=r"of 4 failed texts of .*, 4 are in job_"):
        again(db, keyring, job, "engine_failed")
    detect(db, keyring, made, {"id4": UNSAFE}, {"id2": FOUND, "id7": LOST})
    expected = {f"id{i}": ("safe", "clear") for i in range(10)} | {"id0": ("safe", "found"), "id2": ("safe", "found")}
    expected |= {"id4": ("unsafe", "clear"), "id6": ("unsafe", "clear"), "id7": ("safe", None)}
    assert union(db, job) == expected
    assert union(db, job, min_severity=2) == {"id4": ("unsafe", "clear"), "id6": ("unsafe", "clear")}
    rest = again(db, keyring, job)
    assert rest.total == 1
    detect(db, keyring, rest, {"id7": UNSAFE}, {})
    assert union(db, job, min_severity=2).keys() == {"id4", "id6", "id7"}
    assert union(db, views.get(db, made.public_id)).keys() == {"id1", "id2", "id4", "id7"}
    with pytest.raises(RejectedError, match=r"of 4 failed texts of .*, 4 got a verdict from a retry"):
        again(db, keyring, job)


def test_an_error_is_named_as_the_verdict_or_a_detection_has_it(db: Database, keyring: Keyring) -> None:
    job = detected_job(db, keyring)
    asked = {("unparsed",): ["id4"], ("engine_failed",): ["id1", "id2"], ("abandoned", "too_long"): ["id7"]}
    for codes, texts in asked.items():
        made = again(db, keyring, job, *codes)
        assert [row.id for no in (0,) for row in leases.load(db, keyring, took(db, made, no))] == texts
    with pytest.raises(RejectedError, match=r"4 are in job_"):
        again(db, keyring, job)


def test_a_text_whose_detection_was_erased_is_not_judged_again(db: Database, keyring: Keyring) -> None:
    job = detected_job(db, keyring)
    erase(db, keyring, Asked(1, Targets(ids=("id2", "id4")), job.label))
    assert retry.wanted(db, keyring, job).texts == 2


def test_a_job_that_asked_no_guard_is_judged_again_by_its_detector(db: Database, keyring: Keyring) -> None:
    finder_id = models.register(db, FINDER)

    def finish(job: JobView, found: list[Detection]) -> JobView:
        held = leases.claim(db, job.id, 0, worker="w", lease_s=60, by=Waits("detector:finder", takes_any=False))
        assert held is not None
        loaded = Loaded(held, leases.load(db, keyring, held), [None] * held.n, None)
        rows = stored_rows(db, loaded, Provisional(None, [], is_settled=True))
        assert completion.finish(db, held, rows, model_id=None, detected=[Detected(0, finder_id, FINDER, found)])
        return views.get(db, job.public_id)

    job = finish(submit(db, keyring, 3, new=new_job(detectors="finder")), [CLEAR, BROKEN, FOUND])
    made = again(db, keyring, job)
    assert (made.total, made.detectors) == (1, ["finder"])
    finish(made, [FOUND])
    assert union(db, job) == {"id0": ("unrated", "clear"), "id1": ("unrated", "found"), "id2": ("unrated", "found")}


def test_with_a_policy_the_newest_decision_is_of_the_newest_detections(db: Database, keyring: Keyring) -> None:
    version, _ = policies.add(
        db,
        1,
        read("""
name: p
default: allow
rules:
  - {id: found, when: {detectors: {finder: {label: found}}}, action: flag}
"""),
    )
    policies.activate(db, version)
    job = detected_job(db, keyring)
    detect(db, keyring, again(db, keyring, job), {}, {"id2": FOUND})
    rows = [row for page in newest.with_retries(db, job) for row in page.fields()]
    assert {row["id"] for row in rows if row["action"] == "flag"} == {"id0", "id2"}
    assert all(row["action"] == "allow" for row in rows if row["id"] not in ("id0", "id2"))
