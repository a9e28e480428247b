"""Erasing while workers judge, pass on, fail, hand back, bisect: whoever comes first, nothing of the text is written afterwards."""

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest

from guardfleet.domain.states import JobState
from guardfleet.domain.targets import Targets
from guardfleet.errors import GuardfleetError
from guardfleet.jobs import erase as use_case
from guardfleet.jobs import retry
from guardfleet.jobs.asked import Asked
from guardfleet.jobs.intake import Intake
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import models, newest, verdicts
from guardfleet.store.erasure import texts
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, handoff, leases
from guardfleet.store.shards.bisect import bisect
from guardfleet.store.shards.handoff import Provisional
from guardfleet.store.shards.leases import NO_LIMITS, Claim
from tests.services.fleet import until
from tests.services.judged import SAFE, answered, failed
from tests.services.patience import patience
from tests.services.remains import where
from tests.services.stored import MODEL, new_job, scalar, took
from worker.moderation.outcome import rows_of

CANARY = "canary-race-4b1f"
TARGETS = Targets.of((), [("user", CANARY)])
SHARDS, OF_SHARD = 12, 5
EXPIRE = """update shard s set lease_until = now() from (select job_id, shard_no from shard where job_id = %(job)s
            for update skip locked) x where s.job_id = x.job_id and s.shard_no = x.shard_no and s.state = 1"""
THREADS = 4
MINE = 2  # of each shard, the place of the person's text


def brought(db: Database, keyring: Keyring, **asked: Any) -> JobView:
    with Intake(db, keyring, load_settings(shard_texts=OF_SHARD), new_job(**asked)) as intake:
        for i in range(SHARDS * OF_SHARD):
            is_mine = i % OF_SHARD == MINE
            row = PayloadRow(
                f"{CANARY}{i}" if is_mine else f"id{i}",
                f"{CANARY if is_mine else 'other'} {i}",
                {"user": CANARY} if is_mine else None,
            )
            intake.add_all([(i + 1, row)])
        return intake.seal()


class Fleet:
    """Threads that take whatever shard can be taken, and do with it what workers and dispatchers do, in random order."""

    def __init__(self, db: Database, keyring: Keyring, job: JobView, seed: int) -> None:
        self._db, self._keyring, self._job = db, keyring, job
        self._model_id = models.register(db, MODEL)
        self._ends, self.go_on = threading.Event(), threading.Event()
        self.has_read = threading.Semaphore(0)  # of each thread, once: it holds a shard's texts, and waits to go on
        self.raised: list[BaseException] = []
        self._threads = [threading.Thread(target=self._live, args=(random.Random(seed * 10 + i),)) for i in range(THREADS)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(patience(60))

    def _live(self, rng: random.Random) -> None:
        is_first = True
        try:
            while not self._ends.is_set():
                is_first = not self._step(rng, waits=is_first) and is_first
        except BaseException as error:  # noqa: BLE001 - asserted on by the test
            self.raised.append(error)
            self._ends.set()

    def _step(self, rng: random.Random, *, waits: bool) -> bool:
        with self._db.session() as connection:
            nos = connection.scalars("select shard_no from shard where job_id = %(job)s and state in (0, 1)", {"job": self._job.id})
        if not nos:
            self._ends.set()
            return True
        held = leases.claim(self._db, self._job.id, rng.choice(nos), worker="w", lease_s=rng.choice([60, -1]))
        if held is None:
            with self._db.session() as connection:  # whoever was fenced forgot it: its lease is over
                connection.execute(EXPIRE, {"job": self._job.id})
            return False
        rows, first = handoff.load(self._db, self._keyring, held)
        if waits:
            self.has_read.release()
            self.go_on.wait(patience(20))
        if len(rows) == held.n:  # else it was split between the claim and the load: the claim is lost, as all that follows on it
            self._do(rng, held, rows, first)
        return True

    def _do(self, rng: random.Random, held: Claim, rows: list[PayloadRow], first: Provisional | None) -> None:
        judgements = [answered(f"an answer that quotes {row.content}") if not row.is_erased else SAFE for row in rows]
        done: list[Callable[[], object]] = [
            lambda: completion.finish(
                self._db,
                held,
                rows_of(rows, [self._keyring.digest(1, row.content) for row in rows], judgements),
                model_id=self._model_id,
            ),
            lambda: leases.release(self._db, held),
            lambda: leases.fail(self._db, held, error="x", delay_s=0),
            lambda: leases.renew(self._db, [held], lease_s=1),
        ]
        if held.plan.second_model is not None and first is None:
            done.append(lambda: handoff.pass_on(self._db, self._keyring, held, Provisional(self._model_id, judgements)))
        if held.n > 1:
            done.append(lambda: bisect(self._db, self._keyring, held, rows, first, limits=NO_LIMITS))
        rng.choice(done)()


@pytest.mark.parametrize("seed", range(6))
def test_nothing_of_an_erased_text_is_written_by_whoever_had_read_it(db: Database, keyring: Keyring, seed: int) -> None:
    models.register(db, MODEL)
    job = brought(db, keyring, escalate_to=MODEL.name)
    fleet = Fleet(db, keyring, job, seed)
    fleet.start()
    for _ in range(THREADS):
        assert fleet.has_read.acquire(timeout=patience(20))
    fleet.go_on.set()
    receipt = use_case.erase(db, keyring, Asked(1, TARGETS))
    at_the_end = where(db, keyring, [CANARY])
    fleet.join()
    assert fleet.raised == []
    assert receipt.is_whole
    assert at_the_end == {CANARY: set()}
    assert where(db, keyring, [CANARY]) == {CANARY: set()}
    ended = views.get(db, job.public_id)
    assert (ended.state, ended.done, ended.erased, receipt.texts) == (JobState.COMPLETED, SHARDS * OF_SHARD, SHARDS, SHARDS)
    erased = [row for row in verdicts.export(db, ended) if row["id"] is None]
    assert [row["seq"] for row in erased] == list(range(MINE, SHARDS * OF_SHARD, OF_SHARD))
    assert {(row["severity"], row["error"]) for row in erased} == {("error", "erased")}
    assert ended.safe == 0  # never safe, though the workers said so of what was erased
    assert scalar(db, f"select count(*) from verdict where job_id = {job.id}") == SHARDS * OF_SHARD


def test_a_claim_that_waited_for_the_erasure_does_not_bring_the_text(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim of an interactive shard reads the blob too, and PostgreSQL reads that as of the statement's beginning."""
    with Intake(db, keyring, load_settings(shard_texts=5), new_job(interactive=True)) as intake:
        intake.add_all([(1, PayloadRow(CANARY, CANARY, {"user": CANARY}))])
        job = intake.seal()
    locked, claims = texts._locked, []

    def meanwhile(*args: Any) -> Any:
        shard = locked(*args)
        thread = threading.Thread(target=lambda: claims.append(took(db, job, 0)))
        thread.start()
        until(lambda: scalar(db, "select exists (select from pg_stat_activity where wait_event_type = 'Lock')"), what="the claim")
        waiting.append(thread)
        return shard

    waiting: list[threading.Thread] = []
    monkeypatch.setattr(texts, "_locked", meanwhile)
    assert use_case.erase(db, keyring, Asked(1, TARGETS)).texts == 1
    waiting[0].join(patience(20))
    (claim,) = claims
    assert [row.is_erased for row in leases.load(db, keyring, claim)] == [True]


@pytest.mark.parametrize("at", ["before", "while it is filled", "after"])
def test_a_retry_does_not_bring_an_erased_text_back(
    db: Database, keyring: Keyring, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    settings = load_settings(shard_texts=OF_SHARD)
    job = brought(db, keyring)
    model_id = models.register(db, MODEL)
    for no in range(SHARDS):
        held = took(db, job, no)
        rows = leases.load(db, keyring, held)
        made = rows_of(rows, [keyring.digest(1, row.content) for row in rows], [failed("engine_failed")] * len(rows))
        assert completion.finish(db, held, made, model_id=model_id)
    job = views.get(db, job.public_id)
    unfinished = []
    if at == "before":
        use_case.erase(db, keyring, Asked(1, TARGETS))
    if at == "while it is filled":
        read = retry._again

        def erasing(*args: Any) -> Any:
            rows = list(read(*args))  # the copies are in memory
            if not unfinished:
                unfinished.append(use_case.erase(db, keyring, Asked(1, TARGETS)))
            return iter(rows)

        monkeypatch.setattr(retry, "_again", erasing)
    again = retry.judge_again(db, keyring, settings, job, ()).job
    if at != "before":
        receipt = use_case.erase(db, keyring, Asked(1, TARGETS))
        assert receipt.is_whole
        assert [one.finished_at for one in unfinished] == [None] * len(unfinished)
    assert where(db, keyring, [CANARY]) == {CANARY: set()}
    assert again.total == SHARDS * OF_SHARD - (SHARDS if at == "before" else 0)
    for no in range(scalar(db, f"select count(*) from shard where job_id = {again.id}")):
        held = took(db, again, no)
        rows = leases.load(db, keyring, held)
        made = rows_of(rows, [keyring.digest(1, row.content) for row in rows], [SAFE] * len(rows))
        assert completion.finish(db, held, made, model_id=model_id)
    found = [row for page in newest.with_retries(db, job) for row in page.fields()]
    assert [row["seq"] for row in found if row["severity"] == "error"] == list(range(MINE, SHARDS * OF_SHARD, OF_SHARD))
    assert {row["error"] for row in found if row["severity"] == "error"} == {"erased"}
    with pytest.raises(GuardfleetError):  # nothing is left to be judged again
        retry.judge_again(db, keyring, settings, job, ())
