"""Erasing one person's data: nothing of it is left in any table, the neighbours keep all of theirs, each text is counted once."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from guardfleet.domain.states import JobState, ShardState
from guardfleet.domain.targets import Targets
from guardfleet.errors import NotFoundError, RejectedError, RetryableError
from guardfleet.jobs import erase as use_case
from guardfleet.jobs import holding
from guardfleet.jobs.asked import Asked
from guardfleet.jobs.erase import Erasing
from guardfleet.jobs.intake import Intake
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import files, keys, models, verdicts
from guardfleet.store.erasure import holds, receipts, search, texts, whole_jobs
from guardfleet.store.erasure.receipts import Receipt
from guardfleet.store.jobs import control, intake_recovery, unprocessed, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, handoff, leases
from guardfleet.store.shards.completion import Row
from guardfleet.store.shards.handoff import Provisional
from guardfleet.store.shards.leases import Claim
from tests.services.judged import UNSURE, answered
from tests.services.moderating import moderator
from tests.services.poison import change
from tests.services.remains import where
from tests.services.stored import MODEL, new_job, scalar, took
from worker.moderation.tasks import Moderator

__all__ = ["moderator"]
ID, TEXT, SUBJECT, RAW = (f"canary-{name}-7c3d" for name in ("id", "text", "subject", "raw"))
MINE = (ID, TEXT, SUBJECT, RAW)
OTHER_ID, OTHER_TEXT, OTHER_SUBJECT, OTHER_RAW = (f"neighbour-{name}-5e2a" for name in ("id", "text", "subject", "raw"))
THEIRS = (OTHER_ID, OTHER_TEXT, OTHER_SUBJECT, OTHER_RAW)
BY_ID = Targets.of([ID])
BY_SUBJECT = Targets.of((), [("user", SUBJECT)])
NO_TEXT = 7  # texts of a job below


def rows(n: int = NO_TEXT, at: Sequence[int] = (1, 4)) -> list[PayloadRow]:
    """A job's texts: the person's `at` these places, the first with the canary as id, all with it as subject; others between."""
    out = []
    for i in range(n):
        if i in at:
            out.append(PayloadRow(ID if i == at[0] else f"{ID}-{i}", f"{TEXT} {i}", {"user": SUBJECT, "n": i}))
        else:
            out.append(PayloadRow(f"{OTHER_ID}-{i}", f"{OTHER_TEXT} {i}", {"user": OTHER_SUBJECT}))
    return out


def brought(db: Database, keyring: Keyring, *, tenant_id: int = 1, shard_texts: int = 3, **asked: Any) -> JobView:
    with Intake(db, keyring, load_settings(shard_texts=shard_texts), new_job(tenant_id=tenant_id, **asked)) as intake:
        intake.add_all(enumerate(rows(), 1))
        return intake.seal()


def judge(db: Database, keyring: Keyring, held: Claim) -> bool:
    """Finish a shard; each raw answer quotes its text, as a model that ignores its grammar does."""
    model_id = models.register(db, MODEL)
    made = [
        Row(
            row.id,
            answered(f"Safety: Unsafe\nCategories: Violent\n{RAW if TEXT in row.content else OTHER_RAW} {row.content}"),
            keyring.digest(held.tenant_id, row.content),
            row.metadata,
        )
        for row in leases.load(db, keyring, held)
    ]
    return completion.finish(db, held, made, model_id=model_id) is not None


def judged(db: Database, keyring: Keyring, **asked: Any) -> JobView:
    job = brought(db, keyring, **asked)
    for no in range(3):
        assert judge(db, keyring, took(db, job, no))
    return views.get(db, job.public_id, tenant_id=job.tenant_id)


def erase(db: Database, keyring: Keyring, targets: Targets, job: JobView | None = None, *, tenant_id: int = 1) -> Receipt:
    return use_case.erase(db, keyring, Asked(tenant_id, targets, job.label if job else None))


def other_tenant(db: Database, keyring: Keyring) -> int:
    keys.create(db, keyring, name="k", tenant="other")
    return keys.tenant_id(db, "other")


@dataclass
class World:
    """A tenant's texts in every state that a shard can have."""

    done: JobView
    purged: JobView
    waiting: JobView
    leased: JobView
    passed: JobView
    cancelled: JobView
    held: list[Claim] = field(default_factory=list)

    @property
    def jobs(self) -> list[JobView]:
        return [self.done, self.purged, self.waiting, self.leased, self.passed, self.cancelled]


def world(db: Database, keyring: Keyring, *, tenant_id: int = 1) -> World:
    from guardfleet.store.jobs import retention

    def again(job: JobView) -> JobView:
        return views.get(db, job.public_id, tenant_id=tenant_id)

    done, purged = judged(db, keyring, tenant_id=tenant_id), judged(db, keyring, tenant_id=tenant_id)
    assert retention.purge(db, [purged.id]) == 1
    waiting, leased = brought(db, keyring, tenant_id=tenant_id), brought(db, keyring, tenant_id=tenant_id)
    held = [took(db, leased, no) for no in range(3)]
    passed = brought(db, keyring, tenant_id=tenant_id, escalate_to=MODEL.name)
    for no in range(3):
        claim = took(db, passed, no)
        first = [answered(f"{RAW if TEXT in row.content else OTHER_RAW} {row.content}") for row in leases.load(db, keyring, claim)]
        assert handoff.pass_on(db, keyring, claim, Provisional(models.register(db, MODEL), first))
    cancelled = brought(db, keyring, tenant_id=tenant_id)
    control.cancel(db, cancelled.id)
    return World(*map(again, (done, purged, waiting, leased, passed, cancelled)), held=held)


@pytest.mark.parametrize("targets", [BY_ID, BY_SUBJECT, BY_ID | BY_SUBJECT], ids=["id", "subject", "both"])
def test_nothing_of_the_person_is_in_any_table_and_all_of_the_neighbours_is(
    db: Database, keyring: Keyring, targets: Targets
) -> None:
    world(db, keyring)
    before = where(db, keyring, [*MINE, *THEIRS])
    assert {"verdict", "shard_payload", "first_opinion"} <= before[RAW] | before[TEXT]
    assert all(before.values())  # the look finds what there is
    if targets is BY_ID:  # then the person's other text has another id
        targets = Targets.of([ID, f"{ID}-4"])
    receipt = erase(db, keyring, targets)
    after = where(db, keyring, [*MINE, *THEIRS])
    assert {word: tables for word, tables in after.items() if word in MINE} == {word: set() for word in MINE}
    kept = {word: before[word] | {"pg_statistic"} for word in THEIRS}  # the planner's statistics are taken anew
    assert {word: tables | {"pg_statistic"} for word, tables in after.items() if word in THEIRS} == kept
    assert receipt.is_whole
    assert (receipt.texts, receipt.verdicts, receipt.blobs, receipt.provisional) == (12, 4, 10, 2)


def test_the_digests_that_would_serve_the_text_again_are_gone(db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring)
    mine, theirs = ([keyring.digest(1, row.content) for row in rows() if word in row.content] for word in (TEXT, OTHER_TEXT))
    kept = "select count(*) from verdict where digest = any('{%s}'::uuid[])"
    assert scalar(db, kept % ",".join(digest.hex() for digest in mine)) == 2
    erase(db, keyring, BY_SUBJECT)
    assert scalar(db, kept % ",".join(digest.hex() for digest in mine)) == 0
    assert scalar(db, kept % ",".join(digest.hex() for digest in theirs)) == 5
    assert views.get(db, job.public_id).erased == 2


def test_a_verdict_keeps_what_counts_need_and_says_that_it_was_erased(db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring)
    before = list(verdicts.export(db, job))
    erase(db, keyring, BY_SUBJECT)
    after = list(verdicts.export(db, job))
    for old, new in zip(before, after, strict=True):
        if old["seq"] not in (1, 4):
            assert new == old
            continue
        assert (new["id"], new["metadata"], new["raw"]) == (None, None, None)
        assert new["evidence"] == {"notes": ["erased on request"]}
        assert new["error"] == "erased"  # it was `unparsed`: the model's answer was no answer
        for name in ("severity", "categories", "served_by", "model", "input_tokens", "output_tokens", "done_at"):
            assert new[name] == old[name]
    counts = views.get(db, job.public_id)
    assert (counts.done, counts.severities) == (job.done, job.severities)


def test_texts_that_wait_end_as_errors_and_every_text_in_one_count(db: Database, keyring: Keyring, moderator: Moderator) -> None:
    found = world(db, keyring)
    erase(db, keyring, BY_SUBJECT)
    change(db, "update job set second_model = null; update shard set model = null")  # the one model here takes all
    for job in (found.waiting, found.leased, found.passed):
        for no in range(3):
            moderator(job.id, no)
        assert scalar(db, f"select count(*) from shard where job_id = {job.id} and state <> {ShardState.DONE}") == 0 or (
            job is found.leased  # one of its shards has no text of the person, and its worker still has it
        )
    for job in (found.waiting, found.passed):
        ended = views.get(db, job.public_id)
        assert (ended.state, ended.done, ended.error) == (JobState.COMPLETED, NO_TEXT, 2)
        erased = [row for row in verdicts.export(db, ended) if row["error"] == "erased"]
        assert [(row["seq"], row["id"], row["served_by"], row["severity"]) for row in erased] == [
            (1, None, "nobody", "error"),
            (4, None, "nobody", "error"),
        ]
        assert erased[0]["rationale"] == "No verdict: its text was erased on request."
    assert not any(where(db, keyring, MINE).values())


def test_a_worker_that_read_the_text_is_fenced_and_others_are_not(db: Database, keyring: Keyring) -> None:
    job = brought(db, keyring)
    held = [took(db, job, no) for no in range(3)]
    loaded = [leases.load(db, keyring, claim) for claim in held]
    assert any(row.id == ID for row in loaded[0])
    erase(db, keyring, BY_SUBJECT)
    finished = []
    for claim, texts_of in zip(held, loaded, strict=True):
        made = [Row(row.id, UNSURE, None, row.metadata) for row in texts_of]
        finished.append(completion.finish(db, claim, made, model_id=models.register(db, MODEL)) is not None)
    assert finished == [False, False, True]  # the person's texts are in the first and the second
    assert not any(where(db, keyring, MINE).values())
    assert leases.renew(db, held, lease_s=60) is None
    assert scalar(db, f"select count(*) from shard where job_id = {job.id} and state = {ShardState.READY}") == 2
    assert scalar(db, f"select max(claims) from shard where job_id = {job.id} and state = {ShardState.READY}") == 0


def test_another_tenant_with_the_same_ids_and_subjects_keeps_everything(db: Database, keyring: Keyring) -> None:
    theirs = other_tenant(db, keyring)
    judged(db, keyring)
    foreign = [judged(db, keyring, tenant_id=theirs), brought(db, keyring, tenant_id=theirs)]
    receipt = erase(db, keyring, BY_ID | BY_SUBJECT)
    assert receipt.texts == 2
    assert where(db, keyring, MINE)[ID] >= {"verdict", "shard_payload"}
    rest = [row["id"] for row in verdicts.export(db, foreign[0])]
    assert rest == [row.id for row in rows()]
    with pytest.raises(NotFoundError):
        erase(db, keyring, BY_ID, foreign[0])
    with pytest.raises(NotFoundError):
        use_case.erase(db, keyring, Asked(1, Targets(), foreign[0].label))
    with pytest.raises(NotFoundError):
        receipts.get(db, receipt.public_id, tenant_id=theirs)
    assert receipts.page(db, tenant_id=theirs, after=None, limit=10) == []
    assert erase(db, keyring, BY_SUBJECT, tenant_id=theirs).texts == 4


def test_a_job_limits_an_erasure_and_other_jobs_keep_the_text(db: Database, keyring: Keyring) -> None:
    first, second = judged(db, keyring), judged(db, keyring)
    assert erase(db, keyring, BY_SUBJECT, first).texts == 2
    assert [views.get(db, job.public_id).erased for job in (first, second)] == [2, 0]


@pytest.mark.parametrize(
    ("stored", "asked", "is_meant"),
    [
        ("7", "7", True), (7, 7, True), (7, 7.0, True), (7.5, 7.5, True), (True, True, True),
        ("7", 7, False), (7, "7", False), (1, True, False), (True, 1, False), ([7], 7, False), ({"a": 7}, 7, False),
        (None, "null", False),
    ],
)  # fmt: skip
def test_a_subject_is_compared_as_policies_compare(
    db: Database, keyring: Keyring, stored: object, asked: Any, is_meant: bool
) -> None:
    with Intake(db, keyring, load_settings(shard_texts=1), new_job()) as intake:
        intake.add_all([(1, PayloadRow("a", "one", {"k": stored})), (2, PayloadRow("b", "two", {"k": stored}))])
        job = intake.seal()
    judge(db, keyring, took(db, job, 0))  # one is searched in SQL, and one inside its blob
    assert erase(db, keyring, Targets.of((), [("k", asked)])).texts == (2 if is_meant else 0)


def test_an_erasure_that_is_repeated_finds_nothing_more(db: Database, keyring: Keyring) -> None:
    world(db, keyring)
    first = erase(db, keyring, BY_SUBJECT)
    again = erase(db, keyring, BY_SUBJECT)
    assert first.public_id != again.public_id
    assert (again.texts, again.blobs, again.requests, again.is_whole) == (0, 0, 0, True)


def test_one_that_was_killed_goes_on_where_it_was_under_the_same_receipt(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    world(db, keyring)
    done = texts._erase
    calls = []

    def dies(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return done(*args)

    monkeypatch.setattr(texts, "_erase", dies)
    with pytest.raises(KeyboardInterrupt):
        erase(db, keyring, BY_SUBJECT)
    (part,) = receipts.page(db, tenant_id=1, after=None, limit=10)
    assert part.finished_at is None
    assert 0 < part.texts < 12
    monkeypatch.setattr(texts, "_erase", done)
    whole = erase(db, keyring, BY_SUBJECT)
    assert (whole.public_id, whole.texts, whole.is_whole) == (part.public_id, 12, True)
    assert not any(where(db, keyring, MINE).values())


def test_one_whose_time_is_over_goes_on_with_the_next_call(db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "SPAN", NO_TEXT)  # each job alone
    world(db, keyring)
    calls = 0
    while True:
        calls += 1
        receipt = use_case.erase(db, keyring, Asked(1, BY_SUBJECT), budget_s=0.0)
        if receipt.finished_at is not None:
            break
    assert (calls, receipt.texts) == (7, 12)
    assert not any(where(db, keyring, MINE).values())


def test_a_job_that_is_being_filled_is_waited_for_and_searched_once_it_is(db: Database, keyring: Keyring) -> None:
    with Intake(db, keyring, load_settings(shard_texts=3), new_job()) as intake:
        intake.add_all(enumerate(rows()[:3], 1))
        intake._close_shard()
        intake._flush()
        receipt = erase(db, keyring, BY_SUBJECT)
        assert (receipt.finished_at, len(receipt.waiting), receipt.texts) == (None, 1, 1)
        intake.add_all(enumerate(rows()[3:], 4))  # read before the erasure, perhaps
        job = intake.seal()
    assert where(db, keyring, [ID])[ID]
    receipt = erase(db, keyring, BY_SUBJECT)
    assert (receipt.is_whole, receipt.waiting, receipt.texts) == (True, [], 2)
    assert not any(where(db, keyring, MINE).values())
    assert views.get(db, job.public_id).erased == 2


def test_of_two_calls_of_one_erasure_one_goes_on_and_each_text_is_counted_once(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SPAN", NO_TEXT)  # each job alone
    world(db, keyring)
    for job in (judged(db, keyring), brought(db, keyring)):
        holding.hold(db, keyring, Asked(1, Targets(), job.label), reason="r")
    in_group, second = Erasing._group, []

    def meanwhile(self: Erasing, group: Any) -> Any:
        found = in_group(self, group)
        if not second and group[0].id == 3:
            second.append(None)
            second.append(erase(db, keyring, BY_SUBJECT))
        return found

    monkeypatch.setattr(Erasing, "_group", meanwhile)
    with pytest.raises(RetryableError, match="at work already"):
        erase(db, keyring, BY_SUBJECT)
    (only,) = receipts.page(db, tenant_id=1, after=None, limit=10)
    assert only == second[1]
    assert (only.texts, only.held, only.finished_at is not None) == (12, 4, True)


def test_a_dropped_text_and_a_refused_line_lose_their_id(db: Database, keyring: Keyring) -> None:
    job = brought(db, keyring)
    change(
        db,
        f"""insert into rejection values ({job.id}, 9, 'unknown_role', 'its role is {SUBJECT}', '{ID}'),
            ({job.id}, 10, 'x', 'y', 'other'), ({job.id}, 11, 'x', 'y', null)""",
    )
    control.cancel(db, job.id)
    receipt = erase(db, keyring, BY_ID)
    assert (receipt.texts, receipt.refusals) == (1, 1)
    assert [(line["code"], line["detail"], line["row_id"]) for line in unprocessed.refused(db, job)] == [
        ("unknown_role", "erased on request", None),
        ("x", "y", "other"),
        ("x", "y", None),
    ]
    dropped = [row for _, some in unprocessed.dropped(db, keyring, views.get(db, job.public_id)) for row in some]
    assert [row.is_erased for row in dropped] == [False, True, *[False] * 5]
    assert use_case.count(db, keyring, Asked(1, Targets(), job.label)).refusals == 1
    assert use_case.erase(db, keyring, Asked(1, Targets(), job.label)).refusals == 1  # of the ids, not of the lines


@pytest.mark.parametrize("is_judged", [True, False])
def test_what_only_looks_like_an_escape_is_a_value_like_any_other(db: Database, keyring: Keyring, is_judged: bool) -> None:
    odd = "\\u0000"  # six characters, which both a text and jsonb can hold
    with Intake(db, keyring, load_settings(shard_texts=2), new_job()) as intake:
        intake.add_all([(1, PayloadRow(odd, "one", {"k": "v"})), (2, PayloadRow("b", "two", {f"k{odd}": f"v{odd}"}))])
        job = intake.seal()
    if is_judged:
        judge(db, keyring, took(db, job, 0))
    by_both = Targets.of([odd], [(f"k{odd}", f"v{odd}")])
    made = holding.hold(db, keyring, Asked(1, by_both), reason="r")
    assert [one.jobs for one in made] == [1, 1]
    assert erase(db, keyring, by_both).held == 2
    for one in made:
        holds.release(db, one.public_id, tenant_id=1)
    assert erase(db, keyring, by_both).texts == 2


@pytest.mark.parametrize("is_judged", [True, False])
def test_a_text_whose_caller_waited_has_no_id_of_the_callers(db: Database, keyring: Keyring, is_judged: bool) -> None:
    """Its number is ours: `--id 0` would be every first text of every request."""
    job = judged(db, keyring) if is_judged else brought(db, keyring)
    change(db, f"update job set online = true where id = {job.id}")
    use_case.erase(db, keyring, Asked(1, BY_ID))
    assert views.get(db, job.public_id).erased == 0
    holding.hold(db, keyring, Asked(1, BY_ID), reason="r")
    assert erase(db, keyring, BY_ID | BY_SUBJECT).texts == 2
    assert use_case.erase(db, keyring, Asked(1, Targets(), f"modr-{job.public_id.hex}")).jobs == 1


def test_a_bisected_shard_is_followed_to_its_halves(db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    from guardfleet.store.shards.bisect import bisect
    from guardfleet.store.shards.leases import NO_LIMITS

    job = brought(db, keyring, shard_texts=7)
    by_shard = texts._by_shard
    once: list[int] = []

    def halved(*args: Any) -> Any:
        found = list(by_shard(*args))
        if not once:  # between the search for the shard and its lock
            once.append(1)
            held = took(db, job, 0)
            assert bisect(db, keyring, held, leases.load(db, keyring, held), None, limits=NO_LIMITS)
        return iter(found)

    monkeypatch.setattr(texts, "_by_shard", halved)
    assert erase(db, keyring, BY_SUBJECT).texts == 2
    assert not any(where(db, keyring, MINE).values())


def test_a_shard_that_cannot_be_decrypted_is_told_and_the_rest_is_erased(db: Database, keyring: Keyring) -> None:
    damaged, sound = brought(db, keyring), brought(db, keyring)
    change(db, f"update shard_payload set blob = '\\x0102' where job_id = {damaged.id} and shard_no = 0")
    receipt = erase(db, keyring, BY_SUBJECT)
    assert (receipt.unread, receipt.is_whole, receipt.texts) == (1, False, 3)
    assert views.get(db, sound.public_id).erased == 2


def test_a_job_as_a_whole_goes_with_its_rows_and_leaves_a_receipt(db: Database, keyring: Keyring) -> None:
    found = world(db, keyring)
    kept = judged(db, keyring)
    for job in found.jobs:
        receipt = use_case.erase(db, keyring, Asked(1, Targets(), job.label))
        assert (receipt.is_whole, receipt.jobs, receipt.texts) == (True, 1, NO_TEXT), job
        with pytest.raises(NotFoundError):
            views.get(db, job.public_id)
        with db.session() as connection:
            for table in connection.scalars(
                """select c.oid::regclass::text from pg_class c join pg_attribute a on a.attrelid = c.oid
                   where c.relkind in ('r', 'p') and a.attname = 'job_id' and relnamespace = 'public'::regnamespace"""
            ):
                left = connection.scalar(f"select count(*) from {table} where job_id = {job.id}")
                assert left == (table == "erasure"), table
    for claim in found.held:
        assert completion.finish(db, claim, [Row(None, UNSURE)] * claim.n, model_id=models.register(db, MODEL)) is None
    assert views.get(db, kept.public_id).done == NO_TEXT
    assert len(list(verdicts.export(db, kept))) == NO_TEXT


def test_an_intake_cannot_go_on_with_a_job_that_was_erased(db: Database, keyring: Keyring) -> None:
    intake = Intake(db, keyring, load_settings(shard_texts=3), new_job(fingerprint=b"f"))
    intake.add_all(enumerate(rows()[:3], 1))
    intake._close_shard()
    intake._flush()
    job = views.get(db, intake.job.public_id)
    assert use_case.erase(db, keyring, Asked(1, Targets(), job.label)).is_whole
    intake.add_all(enumerate(rows()[3:], 4))
    with pytest.raises(RejectedError):
        intake.seal()
    assert not any(where(db, keyring, MINE).values())
    assert intake_recovery.take_over(db, b"f", tenant_id=1) is None


def test_what_is_derived_from_a_whole_input_goes_too(db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring, fingerprint=b"unkeyed digest of one text")
    label = job.label.replace("job_", "batch_")
    change(db, f"insert into repeat (tenant_id, key, fingerprint, subject) values (1, 'k', 'f', '{label}'), (1, 'l', 'g', 'other')")
    assert erase(db, keyring, BY_ID).requests == 1
    assert scalar(db, "select string_agg(subject, ',') from repeat") == "other"
    assert scalar(db, f"select fingerprint is null from job where id = {job.id}")


def test_every_table_with_rows_about_a_text_is_known_to_erasures(db: Database) -> None:
    excused = {
        "verdict": "its columns are emptied, for the counts",
        "detection": "so are its",
        "disagreement": "places that two models judged differently, and nothing that was written",
        "retried": "places, and nothing that was written",
    }
    with db.session() as connection:
        there = connection.scalars(
            """select c.relname from pg_class c where c.relkind in ('r', 'p') and not c.relispartition
                 and c.relnamespace = 'public'::regnamespace and 2 = (
                   select count(*) from pg_attribute a where a.attrelid = c.oid and a.attname in ('job_id', 'seq'))"""
        )
    assert set(there) == {*texts.OF_TEXT, *excused}, "list it in store.erasure.texts.OF_TEXT, or say here why not"


def test_labels_and_samples_of_an_erased_text_go_and_others_stay(db: Database, keyring: Keyring) -> None:
    job, other = judged(db, keyring), judged(db, keyring)
    for one in (job, other):
        change(
            db,
            f"""insert into label (tenant_id, job_id, seq, source, severity, author)
                select 1, {one.id}, seq, 0, 0, 'x' from generate_series(0, {NO_TEXT - 1}) seq;
                insert into sample_text (sample_id, ord, job_id, seq, probability)
                select {one.id}, seq, {one.id}, seq, 0.5 from generate_series(0, {NO_TEXT - 1}) seq;
                insert into review_queue (tenant_id, name, second_share, golden_share, break_after, shows_verdict, lease_s)
                values (1, 'of {one.id}', 0, 0, 0, false, 60);
                insert into review_task (tenant_id, queue_id, job_id, seq, kind)
                select 1, (select max(id) from review_queue), {one.id}, seq, 0 from generate_series(0, {NO_TEXT - 1}) seq""",
        )
    assert erase(db, keyring, BY_SUBJECT, job).beside == 6
    for table in texts.OF_TEXT:
        left = scalar(db, f"select array_agg(seq order by seq) from {table} where job_id = {job.id}")
        assert left == [0, 2, 3, 5, 6]
    assert use_case.erase(db, keyring, Asked(1, Targets(), job.label)).beside == 15
    for table in texts.OF_TEXT:
        assert scalar(db, f"select count(*) from {table}") == NO_TEXT


def test_a_receipt_names_no_value_and_finds_back_by_its_digest(db: Database, keyring: Keyring) -> None:
    judged(db, keyring)
    receipt = erase(db, keyring, BY_ID | BY_SUBJECT)
    said = str(receipt.as_dict())
    assert not [word for word in MINE if word in said]
    assert [one["digest"] for one in receipt.as_dict()["targets"] if one["kind"] == "id"] == [
        keyring.receipt_digest(1, f"id/{ID}").hex()
    ]
    assert keyring.receipt_digest(2, f"id/{ID}") != keyring.receipt_digest(1, f"id/{ID}")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Asked(1, Targets()), "name what is meant"),
        (lambda: Asked(1, Targets.of(["line:3"])), "name the job too"),
        (lambda: Targets.of([""]), "empty"),
        (lambda: Targets.of((), [("k", math.inf)]), "finite"),
        (lambda: Targets.of((), [("k", math.nan)]), "finite"),
        (lambda: Targets.of((), [("k", "a\0b")]), "no text can"),
        (lambda: Targets.of(["\ud800"]), "no text can"),
        (lambda: Targets.of(["a", ""]), r"^ids\[1\] "),
        (lambda: Targets.of(["a"], [("k", "v"), ("k", "")]), r"^subjects\[1\] "),
        (lambda: Targets.of([f"{i}" for i in range(1001)]), "at most 1,000"),
    ],
)
def test_what_means_nothing_or_too_much_is_refused(make: Any, why: str) -> None:
    with pytest.raises(RejectedError, match=why):
        make()


def test_a_big_job_as_a_whole_goes_in_calls_that_end_in_time(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_jobs, "SPAN", 2)
    job = judged(db, keyring)
    first = use_case.erase(db, keyring, Asked(1, Targets(), job.label), budget_s=0.0)
    assert (first.finished_at, first.verdicts, first.jobs) == (None, 2, 0)
    assert len(first.days) == 1  # whose old bytes are left even if a hold comes now
    assert use_case.erase(db, keyring, Asked(1, Targets(), job.label), budget_s=0.0).verdicts == 4
    whole = use_case.erase(db, keyring, Asked(1, Targets(), job.label))
    assert (whole.public_id, whole.is_whole, whole.verdicts, whole.jobs) == (first.public_id, True, NO_TEXT, 1)


def test_a_file_that_is_still_read_when_its_job_is_gone_goes_with_the_next_call(db: Database, keyring: Keyring) -> None:
    """The job cannot be named any more, but its unfinished receipt can be found by its id."""
    job, reading = judged(db, keyring), brought(db, keyring)
    file = files.create(db, keyring, tenant_id=1, filename="people.jsonl")
    files.complete(db, file, purpose="batch", size=1, lines=1, digest=b"d", expires_s=None)
    change(db, f"update job set input_file_id = '{file.public_id}'")
    change(db, f"update job set state = {JobState.INGESTING} where id = {reading.id}")
    first = use_case.erase(db, keyring, Asked(1, Targets(), job.label))
    assert (first.finished_at, first.jobs, first.input_files) == (None, 1, [file.public_id])
    change(db, f"update job set state = {JobState.RUNNING} where id = {reading.id}")
    whole = use_case.erase(db, keyring, Asked(1, Targets(), job.label))
    assert (whole.public_id, whole.is_whole, whole.files) == (first.public_id, True, 1)
    with pytest.raises(NotFoundError):
        use_case.erase(db, keyring, Asked(1, Targets(), job.label))
