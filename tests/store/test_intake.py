"""Intake: work starts at once, an interrupted intake is resumed, and no text is taken twice."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardfleet.client.direct import DirectClient
from guardfleet.client.job import SubmitOptions
from guardfleet.domain.options import JobOptions
from guardfleet.domain.states import JobState, ShardState
from guardfleet.errors import LineError, OverloadedError, RejectedError, RetryableError
from guardfleet.jobs.intake import Intake
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import verdicts
from guardfleet.store.jobs import control, intake_recovery, unprocessed, views
from guardfleet.store.jobs import intake as stored_intake
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import leases, publishing
from tests.services.stored import BULK, Rows, finish, new_job, scalar, take, took

Line = PayloadRow | LineError
SINGLE = load_settings(shard_texts=1, webhook_allow_networks="127.0.0.0/8")
FILE = new_job(name="file", fingerprint=b"f")


def lines(n: int) -> Iterator[tuple[int, Line]]:
    return ((i, PayloadRow(f"{i}", f"text {i}")) for i in range(1, n + 1))


def forget_lease(db: Database) -> None:
    """As if the lease of a killed intake had run out."""
    with db.begin() as connection:
        connection.execute("update job set intake_lease_until = now()")


def view(db: Database, intake: Intake) -> JobView:
    return views.get(db, intake.job.public_id)


def test_work_starts_while_texts_come_in_and_ends_once_all_are_there(db: Database, keyring: Keyring) -> None:
    with Intake(db, keyring, SINGLE, new_job(name="x")) as intake:
        intake.add_all(lines(40))
        bells = publishing.due(db, BULK, limit=100)
        assert len(bells) == 32  # two whole pieces
        for bell in bells:
            finish(db, took(db, view(db, intake), bell.shard_no))
        half = view(db, intake)
        assert (half.state, half.done, half.total) == (JobState.INGESTING, 32, 32)
        job = intake.seal()
    for bell in publishing.due(db, BULK, limit=100):
        finish(db, took(db, job, bell.shard_no))
    assert views.get(db, job.public_id).state is JobState.COMPLETED
    assert [row["seq"] for row in verdicts.export(db, job)] == list(range(40))


def test_a_job_whose_verdicts_are_there_first_is_completed_by_its_seal(db: Database, keyring: Keyring) -> None:
    with Intake(db, keyring, SINGLE, new_job(name="x")) as intake:
        intake.add_all(lines(16))
        for no in range(16):
            finish(db, took(db, view(db, intake), no))
        assert intake.seal().state is JobState.COMPLETED
    assert scalar(db, "select count(*) from outbox where kind = 'batch.completed'") == 1


def test_nothing_of_a_strict_job_is_rung_before_it_is_sealed(db: Database, keyring: Keyring) -> None:
    with Intake(db, keyring, SINGLE, new_job(name="x", all_or_nothing=True)) as intake:
        intake.add_all(lines(40))
        assert publishing.due(db, BULK, limit=100) == []
        intake.seal()
    assert len(publishing.due(db, BULK, limit=100)) == 40


def test_a_slow_input_is_committed_every_few_seconds(db: Database, keyring: Keyring) -> None:
    at = 0.0
    with Intake(db, keyring, load_settings(), new_job(name="x"), clock=lambda: at) as intake:
        for number, row in lines(6):
            at += 0.9
            intake.add(number, row)
        assert view(db, intake).total == 6
        intake.seal()


def test_a_failed_intake_is_given_up_with_its_texts_and_keeps_its_verdicts(db: Database, keyring: Keyring) -> None:
    with pytest.raises(ZeroDivisionError), Intake(db, keyring, SINGLE, new_job(name="x")) as intake:  # noqa: PT012
        intake.add_all(lines(40))
        finish(db, took(db, view(db, intake), 3))
        held = took(db, view(db, intake), 4)
        raise ZeroDivisionError("the disk is gone")
    job = view(db, intake)
    assert (job.state, job.reason, job.done) == (JobState.FAILED, "the disk is gone", 1)
    assert not finish(db, held)
    assert take(db, job, 5) is None
    assert publishing.due(db, BULK, limit=100) == []
    assert scalar(db, "select count(*) from shard_payload") == 0
    assert leases.states(db, job.id) == {ShardState.DONE: 1, ShardState.CANCELLED: 31}
    with pytest.raises(RejectedError, match="abandoned"):
        intake.seal()
    assert len(list(verdicts.export(db, job))) == 1


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RetryableError])
def test_an_interrupted_intake_is_gone_on_with_at_once(db: Database, keyring: Keyring, kind: type[BaseException]) -> None:
    with pytest.raises(kind), Intake(db, keyring, SINGLE, FILE) as first:  # noqa: PT012
        first.add_all(lines(40))
        raise kind
    with Intake(db, keyring, SINGLE, FILE) as second:
        assert (second.job.id, second.resumed_after) == (first.job.id, 32)
        second.add_all(lines(50))
        job = second.seal()
    assert (job.total, scalar(db, "select count(*) from job")) == (50, 1)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://receiver.example/", "callback_url must begin with https:// or http://"),
        ("https://", "and a host"),
        ("https://me:secret@receiver.example/", "user name or password"),
        ("http://10.0.0.1/", "private or reserved address"),
        ("http://0x7f.1/", "private or reserved address"),
        ("http://localhost:9/", "private or reserved address"),
    ],
)
def test_a_callback_that_could_not_be_made_is_refused_before_a_text_is_read(
    db: Database, keyring: Keyring, url: str, said: str
) -> None:
    def untouched() -> Iterator[str]:
        pytest.fail("read")
        yield ""

    with pytest.raises(RejectedError, match=said):
        DirectClient(db, keyring, load_settings()).submit(untouched(), JobOptions(callback_url=url))
    assert scalar(db, "select count(*) from job") == 0


def test_a_submit_that_goes_on_says_the_secret_that_the_first_one_made(db: Database, keyring: Keyring) -> None:
    producer = DirectClient(db, keyring, SINGLE)
    options, how = JobOptions(callback_url="http://127.0.0.1/"), SubmitOptions(fingerprint=b"s")

    def cut_off() -> Iterator[tuple[int, Line]]:
        yield from lines(20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        producer.submit_rows(Rows(cut_off()), options, how)
    found = producer.submit_rows(Rows(lines(20)), options, how)
    assert (found.resumed_after, found.job.total) == (16, 20)
    assert found.callback_secret == keyring.decrypt_secret(bytes(scalar(db, "select secret from endpoint")))


def test_only_the_newest_of_two_intakes_writes(db: Database, keyring: Keyring) -> None:
    first = Intake(db, keyring, SINGLE, FILE)
    first.add_all(lines(20))
    forget_lease(db)
    second = Intake(db, keyring, SINGLE, FILE)
    with pytest.raises(RejectedError, match="taken over"):
        first.seal()
    stored_intake.abandon(db, first.job.id, "too late", token=first.job.token)
    second.add_all(lines(20))
    assert second.seal().total == 20


@pytest.mark.parametrize("is_bad", [False, True])
def test_an_intake_that_was_taken_over_is_told_so_though_the_same_lines_are_there(
    db: Database, keyring: Keyring, is_bad: bool
) -> None:
    def brought() -> Iterator[tuple[int, Line]]:
        return ((n, LineError(n, "wrong_type", "x") if is_bad else row) for n, row in lines(3))

    first = Intake(db, keyring, SINGLE, FILE)
    first.add_all(brought())
    forget_lease(db)
    with Intake(db, keyring, SINGLE, FILE) as second:
        second.add_all(brought())
        second.seal()
    with pytest.raises(RejectedError, match="taken over"):
        first.seal()


def test_a_cancelled_intake_says_so_however_often_the_same_line_is_brought(db: Database, keyring: Keyring) -> None:
    at = 0.0
    intake = Intake(db, keyring, SINGLE, FILE, clock=lambda: at)
    control.cancel(db, intake.job.id)
    at = 3.0  # a piece is due with each line
    for _ in range(3):
        with pytest.raises(RejectedError, match="was cancelled"):
            intake.add_all(lines(1))
    assert scalar(db, "select count(*) from rejection") == 0


def test_an_intake_that_is_alive_is_not_taken_over(db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Intake(db, keyring, SINGLE, FILE)

    def meanwhile(_: float) -> None:
        first.add_all(lines(16))

    monkeypatch.setattr("guardfleet.jobs.intake.time.sleep", meanwhile)
    with pytest.raises(RejectedError, match=f"being submitted, as job_{first.job.public_id.hex}"):
        Intake(db, keyring, SINGLE, FILE)


def test_an_intake_nobody_goes_on_with_is_given_up(db: Database, keyring: Keyring) -> None:
    intake = Intake(db, keyring, SINGLE, FILE)
    intake.add_all(lines(20))
    assert intake_recovery.idle(db, idle_s=0) == {}
    forget_lease(db)
    assert intake_recovery.idle(db, idle_s=60) == {}
    ((idle, token),) = intake_recovery.idle(db, idle_s=-1).items()
    assert idle == intake.job.id
    intake_recovery.abandon(db, idle, token=token)
    assert view(db, intake).state is JobState.FAILED
    assert scalar(db, "select kind from outbox") == "batch.failed"


def test_a_job_can_be_cancelled_while_it_comes_in(db: Database, keyring: Keyring) -> None:
    with pytest.raises(RejectedError, match="was cancelled"), Intake(db, keyring, SINGLE, new_job(name="x")) as intake:  # noqa: PT012
        intake.add_all(lines(16))
        held = took(db, view(db, intake), 2)
        control.cancel(db, intake.job.id)
        intake.add_all(item for item in lines(32) if item[0] > 16)
    assert view(db, intake).state is JobState.CANCELLING
    assert finish(db, held)
    assert control.settle_cancelled(db, control.cancelling(db)) == 1
    assert (view(db, intake).state, view(db, intake).done) == (JobState.CANCELLED, 1)


def test_a_full_house_refuses_new_jobs_with_a_time_to_come_back(db: Database, keyring: Keyring) -> None:
    small = load_settings(shard_texts=1, max_backlog_texts=16)
    intake = Intake(db, keyring, small, new_job(name="x"))
    intake.add_all(lines(16))
    with pytest.raises(OverloadedError, match="16 texts wait for their verdict") as refused:
        Intake(db, keyring, small, new_job(name="y"))
    assert refused.value.retry_after_s > 0
    intake.add_all(item for item in lines(32) if item[0] > 16)  # what was let in may bring all of its texts
    finish(db, took(db, view(db, intake), 0))
    control.cancel(db, intake.job.id)
    Intake(db, keyring, small, new_job(name="y"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.sampled_from(["text", "bad", "twice"]), max_size=60),
    cuts=st.lists(st.tuples(st.integers(0, 70), st.booleans()), max_size=4),
    shard_texts=st.integers(1, 5),
)
def test_wherever_it_is_cut_off_every_line_is_taken_or_refused_once(
    db: Database, keyring: Keyring, kinds: list[str], cuts: list[tuple[int, bool]], shard_texts: int
) -> None:
    def rows() -> Iterator[tuple[int, Line]]:
        for number, kind in enumerate(kinds, 1):
            row = PayloadRow("same" if kind == "twice" else f"{number}", f"text {number}")
            yield number, LineError(number, "wrong_type", "x") if kind == "bad" else row

    values = load_settings(shard_texts=shard_texts)
    mark = bytes(scalar(db, "select decode(md5(random()::text), 'hex')"))
    new = new_job(name="file", fingerprint=mark)
    for cut, is_killed in cuts:
        intake = Intake(db, keyring, values, new)
        intake.add_all(list(rows())[:cut])
        if is_killed:
            forget_lease(db)
        else:
            intake.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with Intake(db, keyring, values, new) as intake:
        intake.add_all(rows())
        job = intake.seal()
    first_same = kinds.index("twice") + 1 if "twice" in kinds else 0
    taken = [n for n, kind in enumerate(kinds, 1) if kind == "text" or n == first_same]
    assert (job.total, job.rejected) == (len(taken), len(kinds) - len(taken))
    contents: list[str] = []
    for no in range(scalar(db, f"select count(*) from shard where job_id = {job.id}")):
        held = took(db, job, no)
        assert held.first_seq == len(contents)
        contents += [str(row.content) for row in leases.load(db, keyring, held)]
    assert contents == [f"text {n}" for n in taken]
    assert [row["line"] for row in unprocessed.refused(db, job)] == [n for n in range(1, len(kinds) + 1) if n not in taken]
