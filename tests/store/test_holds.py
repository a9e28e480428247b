"""Legal holds: what is held is neither erased nor forgotten, everything else is, and a released hold leaves nothing behind."""

from typing import Any

import pytest

from guardfleet.domain import targets as targets_of_requests
from guardfleet.domain.targets import Targets
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.jobs import erase as use_case
from guardfleet.jobs import holding
from guardfleet.jobs.asked import Asked
from guardfleet.security.encryption import Keyring, new_secret_key
from guardfleet.store import audit, files, rotation
from guardfleet.store.erasure import holds, whole_jobs
from guardfleet.store.erasure import search as searching
from guardfleet.store.erasure.holds import Hold
from guardfleet.store.files import StoredFile
from guardfleet.store.jobs import retention, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.poison import change
from tests.services.remains import where
from tests.services.stored import LONG_AGO, finished_on, scalar
from tests.store.test_erasure import BY_ID, BY_SUBJECT, ID, MINE, NO_TEXT, SUBJECT, brought, erase, judged, other_tenant

REASON = "case-2026-17"
OTHERS = Targets.of((), [("user", "neighbour-subject-5e2a")])


def hold(db: Database, keyring: Keyring, targets: Targets, job: JobView | None = None, *, tenant_id: int = 1) -> Hold:
    (made,) = holding.hold(db, keyring, Asked(tenant_id, targets, job.label if job else None), reason=REASON)
    return made


def test_a_held_text_is_refused_and_counted_and_others_are_erased(db: Database, keyring: Keyring) -> None:
    job, waiting = judged(db, keyring), brought(db, keyring)
    made = hold(db, keyring, BY_ID)
    receipt = erase(db, keyring, BY_SUBJECT)  # whose other text is not held
    assert (receipt.texts, receipt.held, receipt.is_whole) == (2, 2, False)
    assert receipt.finished_at is not None
    assert where(db, keyring, [ID])[ID] >= {"verdict", "shard_payload"}
    assert [views.get(db, one.public_id).erased for one in (job, waiting)] == [1, 1]
    assert use_case.count(db, keyring, Asked(1, BY_SUBJECT)).held == 2
    holds.release(db, made.public_id, tenant_id=1)
    receipt = erase(db, keyring, BY_SUBJECT)
    assert (receipt.texts, receipt.held, receipt.is_whole) == (2, 0, True)
    assert not any(where(db, keyring, MINE).values())


def test_a_held_job_keeps_all_of_its_texts_and_cannot_be_erased(db: Database, keyring: Keyring) -> None:
    held, free = judged(db, keyring), judged(db, keyring)
    hold(db, keyring, Targets(), held)
    receipt = erase(db, keyring, BY_SUBJECT)
    assert (receipt.texts, receipt.held) == (2, 2)
    assert [views.get(db, one.public_id).erased for one in (held, free)] == [0, 2]
    receipt = use_case.erase(db, keyring, Asked(1, Targets(), held.label))
    assert (receipt.jobs, receipt.held, receipt.is_whole) == (0, NO_TEXT, False)
    assert views.get(db, held.public_id).done == NO_TEXT


def test_a_retry_of_a_held_job_is_not_erased_with_the_first(db: Database, keyring: Keyring) -> None:
    first, again = judged(db, keyring), judged(db, keyring)
    change(db, f"update job set retry_of = {first.id} where id = {again.id}")
    made = hold(db, keyring, Targets(), again)
    assert use_case.erase(db, keyring, Asked(1, Targets(), first.label)).held == NO_TEXT
    holds.release(db, made.public_id, tenant_id=1)
    assert use_case.erase(db, keyring, Asked(1, Targets(), first.label)).jobs == 2


@pytest.mark.parametrize("targets", [BY_SUBJECT, BY_ID, None], ids=["subject", "id", "job"])
def test_retention_leaves_a_held_job_alone(db: Database, keyring: Keyring, targets: Targets | None) -> None:
    job, free = judged(db, keyring), judged(db, keyring)
    if targets is not None:
        erase(db, keyring, BY_SUBJECT, free)
    made = hold(db, keyring, targets or Targets(), job if targets is None else None)
    assert made.jobs == 1
    assert retention.purgeable(db, older_than_hours=0) == [free.id]
    assert retention.purge(db, [job.id, free.id]) == 1
    assert [views.get(db, one.public_id).purged_at is None for one in (job, free)] == [True, False]
    holds.release(db, made.public_id, tenant_id=1)
    assert retention.purge(db, [job.id]) == 1


def test_a_day_with_a_held_job_is_not_dropped(db: Database, keyring: Keyring) -> None:
    job = finished_on(db, keyring, LONG_AGO)
    assert retention.purge(db, [job.id]) == 1  # the hold comes when only verdicts are left
    made = hold(db, keyring, Targets(), job)
    assert retention.expire(db, "shard_payload", LONG_AGO)
    assert not retention.expire(db, "verdict", LONG_AGO)
    assert scalar(db, f"select count(*) from verdict where job_id = {job.id}") == 4
    holds.release(db, made.public_id, tenant_id=1)
    assert retention.expire(db, "verdict", LONG_AGO)
    with pytest.raises(NotFoundError):
        views.get(db, job.public_id)


def test_a_hold_that_comes_while_a_day_goes_finds_the_job_or_keeps_it(db: Database, keyring: Keyring) -> None:
    """The job's row is locked before it is judged to be free: a hold waits, and then finds that the job is gone."""
    job = finished_on(db, keyring, LONG_AGO)
    retention.purge(db, [job.id])
    with db.begin() as connection:
        assert not retention._is_held(connection, LONG_AGO)
        with db.session() as other:
            waits = other.execute("select from job where id = %(job)s for update skip locked", {"job": job.id}).fetchall()
    assert waits == []
    assert retention.expire(db, "verdict", LONG_AGO)
    with pytest.raises(NotFoundError):
        hold(db, keyring, Targets(), job)


def uploaded(db: Database, keyring: Keyring, *jobs: JobView) -> StoredFile:
    file = files.create(db, keyring, tenant_id=1, filename="people.jsonl")
    whole = files.complete(db, file, purpose="batch", size=1, lines=1, digest=b"d", expires_s=3600)
    for job in jobs:
        change(db, f"update job set input_file_id = '{file.public_id}' where id = {job.id}")
    return whole


def test_the_input_file_goes_with_a_text_of_it_but_not_while_it_is_held_or_read(db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring)
    file = uploaded(db, keyring, job)
    change(db, f"insert into repeat (tenant_id, key, fingerprint, subject) values (1, 'k', 'f', '{file.label}')")
    made = hold(db, keyring, OTHERS)
    receipt = erase(db, keyring, BY_SUBJECT)
    assert (receipt.texts, receipt.files, receipt.held, receipt.input_files) == (2, 0, 1, [])
    with pytest.raises(RejectedError, match="legal hold"):
        files.delete(db, file.public_id, tenant_id=1)
    change(db, "update file set expires_at = now() - interval '1 s'")
    assert files.overdue(db) == []
    assert files.expire(db, [scalar(db, "select id from file")]) == 0
    holds.release(db, made.public_id, tenant_id=1)
    assert files.overdue(db) != []
    change(db, "update file set expires_at = null")

    reading = brought(db, keyring)
    change(db, f"update job set state = 0, input_file_id = '{file.public_id}' where id = {reading.id}")
    receipt = erase(db, keyring, OTHERS, job)
    assert (receipt.finished_at, receipt.input_files) == (None, [file.public_id])
    change(db, f"update job set state = 1 where id = {reading.id}")
    receipt = erase(db, keyring, OTHERS, job)
    assert (receipt.is_whole, receipt.files, receipt.requests) == (True, 1, 0)
    assert scalar(db, "select data_key is null and digest is null and filename = '' from file")
    assert scalar(db, "select count(*) from repeat") == 0
    with pytest.raises(NotFoundError):
        files.get(db, file.public_id, tenant_id=1)


def test_a_hold_is_extended_to_jobs_that_came_later(db: Database, keyring: Keyring) -> None:
    judged(db, keyring)
    made = hold(db, keyring, BY_SUBJECT)
    later = judged(db, keyring)
    assert later.id in retention.purgeable(db, older_than_hours=0)  # the limit that docs/erasure.md names
    assert erase(db, keyring, BY_SUBJECT, later).held == 2  # but no erasure takes it
    assert holding.extend(db, keyring, made).jobs == 2
    assert holding.extend(db, keyring, made).jobs == 2
    assert retention.purgeable(db, older_than_hours=0) == []
    assert scalar(db, "select max(holds) from job") == 1
    holds.release(db, made.public_id, tenant_id=1)
    with pytest.raises(RejectedError, match="released"):
        holding.extend(db, keyring, holds.get(db, made.public_id, tenant_id=1))


@pytest.mark.parametrize("targets", [BY_SUBJECT, BY_ID], ids=["subject", "id"])
@pytest.mark.parametrize("state", ["judged", "waiting", "purged"])
def test_a_job_that_came_after_a_hold_and_has_a_held_text_does_not_go_as_a_whole(
    db: Database, keyring: Keyring, targets: Targets, state: str
) -> None:
    made = hold(db, keyring, targets)
    job = brought(db, keyring) if state == "waiting" else judged(db, keyring)
    if state == "purged":
        assert retention.purge(db, [job.id]) == 1
    asked = Asked(1, Targets(), job.label)
    assert use_case.count(db, keyring, asked).held == NO_TEXT
    receipt = use_case.erase(db, keyring, asked)
    assert (receipt.jobs, receipt.verdicts, receipt.held, receipt.is_whole) == (0, 0, NO_TEXT, False)
    after = views.get(db, job.public_id)
    assert (after.state, after.done) == (job.state, job.done)  # nor was it stopped
    assert holds.get(db, made.public_id, tenant_id=1).jobs == 1  # the hold is extended, against retention too
    holds.release(db, made.public_id, tenant_id=1)
    assert use_case.erase(db, keyring, asked).jobs == 1


def test_a_text_that_came_in_while_its_job_was_being_erased_is_found(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(db, keyring, BY_SUBJECT)
    job = judged(db, keyring)
    change(db, f"update verdict set metadata = null where job_id = {job.id}; update job set state = 1 where id = {job.id}")
    stop = whole_jobs.stop

    def meanwhile(*args: Any) -> None:
        change(db, f'update verdict set metadata = \'{{"user": "{SUBJECT}"}}\' where job_id = {job.id} and seq = 1')
        stop(*args)

    monkeypatch.setattr(whole_jobs, "stop", meanwhile)
    change(db, f"delete from shard where job_id = {job.id}")
    receipt = use_case.erase(db, keyring, Asked(1, Targets(), job.label))
    assert (receipt.jobs, receipt.held) == (0, NO_TEXT)


def test_a_refused_line_with_a_held_id_is_held_and_keeps_its_job_and_file(db: Database, keyring: Keyring) -> None:
    made = hold(db, keyring, Targets.of(["refused"]))
    job = judged(db, keyring)
    uploaded(db, keyring, job)
    change(db, f"insert into rejection values ({job.id}, 9, 'missing_text', 'no text', 'refused')")
    both = Targets.of(["refused", ID])
    assert use_case.count(db, keyring, Asked(1, both)).as_dict() == {
        "texts": 1, "refusals": 1, "held": 1, "jobs": 1, "files": 0, "unread": 0,
    }  # fmt: skip
    receipt = erase(db, keyring, both)
    assert (receipt.texts, receipt.refusals, receipt.files, receipt.held, receipt.is_whole) == (1, 0, 0, 2, False)
    assert use_case.erase(db, keyring, Asked(1, Targets(), job.label)).jobs == 0
    holds.release(db, made.public_id, tenant_id=1)
    receipt = erase(db, keyring, both)
    assert (receipt.refusals, receipt.files, receipt.held, receipt.is_whole) == (1, 1, 0, True)


@pytest.mark.parametrize(("targets", "n_held"), [(BY_ID, 1), (None, 2)], ids=["id", "job"])
def test_a_hold_that_comes_while_texts_are_searched_holds(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch, targets: Targets | None, n_held: int
) -> None:
    job = judged(db, keyring)
    search, made = searching.search, []

    def meanwhile(*args: Any) -> Any:
        found = search(*args)
        if not made:
            made.append(None)
            hold(db, keyring, targets or Targets(), None if targets else job)
        return found

    monkeypatch.setattr(searching, "search", meanwhile)
    receipt = erase(db, keyring, BY_SUBJECT)
    assert (receipt.texts, receipt.held) == (2 - n_held, n_held)


def test_more_holds_than_one_request_may_name_keep_a_job(db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    job = judged(db, keyring)
    monkeypatch.setattr(targets_of_requests, "MOST", 2)
    for targets in (BY_ID, BY_SUBJECT, OTHERS, *(Targets.of([f"nobody-{n}"]) for n in range(3))):
        hold(db, keyring, targets)
    change(db, "delete from held_job; update job set holds = 0")  # as of holds that came before the job
    assert use_case.erase(db, keyring, Asked(1, Targets(), job.label)).jobs == 0
    assert scalar(db, "select holds from job") == 3


def test_an_id_in_a_refused_line_alone_is_foreseen_with_its_file(db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring)
    uploaded(db, keyring, job)
    change(db, f"insert into rejection values ({job.id}, 9, 'missing_text', 'no text', 'refused')")
    asked = Asked(1, Targets.of(["refused"]))
    foreseen = use_case.count(db, keyring, asked)
    receipt = use_case.erase(db, keyring, asked)
    assert (foreseen.texts, foreseen.refusals, foreseen.files, foreseen.jobs) == (0, 1, 1, 1)
    assert (receipt.texts, receipt.refusals, receipt.files) == (0, 1, 1)


def test_a_refused_line_of_a_held_job_is_counted_as_held(db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring)
    change(db, f"insert into rejection values ({job.id}, 9, 'missing_text', 'no text', 'refused')")
    hold(db, keyring, Targets(), job)
    receipt = erase(db, keyring, Targets.of(["refused"]))
    assert (receipt.refusals, receipt.held, receipt.is_whole) == (0, 1, False)


def test_a_file_stays_if_a_job_of_it_that_came_after_a_hold_has_a_held_text(db: Database, keyring: Keyring) -> None:
    made = hold(db, keyring, OTHERS)
    file = uploaded(db, keyring, judged(db, keyring))
    assert use_case.count(db, keyring, Asked(1, BY_SUBJECT)).files == 0
    receipt = erase(db, keyring, BY_SUBJECT)
    assert (receipt.texts, receipt.files, receipt.held) == (2, 0, 1)
    assert files.get(db, file.public_id, tenant_id=1)
    assert holds.get(db, made.public_id, tenant_id=1).jobs == 1


def test_what_cannot_be_decrypted_may_be_held_while_there_is_a_hold_by_id(db: Database, keyring: Keyring) -> None:
    job = brought(db, keyring)
    change(db, f"update shard_payload set blob = '\\x0102' where job_id = {job.id}")
    made = hold(db, keyring, Targets.of(["somebody"]))
    asked = Asked(1, Targets(), job.label)
    assert use_case.erase(db, keyring, asked).held == NO_TEXT
    holds.release(db, made.public_id, tenant_id=1)
    assert use_case.erase(db, keyring, asked).jobs == 1


def test_another_tenants_hold_keeps_no_job_and_no_file_here(db: Database, keyring: Keyring) -> None:
    hold(db, keyring, BY_SUBJECT, tenant_id=other_tenant(db, keyring))
    job = judged(db, keyring)
    uploaded(db, keyring, job)
    receipt = use_case.erase(db, keyring, Asked(1, Targets(), job.label))
    assert (receipt.jobs, receipt.files, receipt.is_whole) == (1, 1, True)


def test_several_holds_on_a_job_are_counted(db: Database, keyring: Keyring) -> None:
    job = judged(db, keyring)
    first, second = hold(db, keyring, BY_SUBJECT), hold(db, keyring, Targets(), job)
    for made in (first, first, second):
        assert retention.purge(db, [job.id]) == 0
        holds.release(db, made.public_id, tenant_id=1)
    assert scalar(db, "select holds from job") == 0
    assert retention.purge(db, [job.id]) == 1


def test_a_hold_shows_nothing_of_the_person_and_a_released_one_has_nothing(db: Database, keyring: Keyring) -> None:
    made = hold(db, keyring, BY_SUBJECT)
    assert SUBJECT not in str(made.as_dict())
    assert where(db, keyring, [SUBJECT]) == {SUBJECT: {"legal_hold"}}  # encrypted
    assert scalar(db, f"select count(*) from legal_hold h where h::text like '%{SUBJECT}%'") == 0
    released = holds.release(db, made.public_id, tenant_id=1)
    assert where(db, keyring, [SUBJECT]) == {SUBJECT: set()}
    assert holds.release(db, made.public_id, tenant_id=1) == released
    trail = [event.action for event in audit.events(db, audit.Wanted(subject=made.label))]
    assert trail == ["hold.create", "hold.release"]


def test_another_tenants_hold_holds_nothing_here(db: Database, keyring: Keyring) -> None:
    theirs = other_tenant(db, keyring)
    job = judged(db, keyring)
    made = hold(db, keyring, BY_SUBJECT, tenant_id=theirs)
    assert made.jobs == 0
    assert erase(db, keyring, BY_SUBJECT).held == 0
    for call in (
        lambda: holds.release(db, made.public_id, tenant_id=1),
        lambda: hold(db, keyring, Targets(), job, tenant_id=theirs),
    ):
        with pytest.raises(NotFoundError):
            call()
    assert holds.page(db, tenant_id=1, after=None, limit=9) == []


def test_a_hold_holds_after_the_secret_key_was_rotated(db: Database) -> None:
    old = Keyring(SECRET_KEY)
    judged(db, old)
    hold(db, old, BY_SUBJECT)
    new_key = new_secret_key()
    both = Keyring(new_key, SECRET_KEY)
    rotation.rotate(db, both)
    new = Keyring(new_key)
    assert erase(db, new, BY_SUBJECT).held == 2


@pytest.mark.parametrize("reason", ["", "because Mr Doe asked", "x" * 101])
def test_a_reason_is_a_code(db: Database, keyring: Keyring, reason: str) -> None:
    with pytest.raises(RejectedError, match="short code"):
        holding.hold(db, keyring, Asked(1, BY_ID), reason=reason)
    assert scalar(db, "select count(*) from legal_hold") == 0
