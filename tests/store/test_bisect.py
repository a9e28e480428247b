"""Texts that kill their workers are found by bisecting their shard; all others get their verdict, exactly once."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardfleet.domain.states import JobState
from guardfleet.jobs.intake import COMMIT_SHARDS, Intake
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import models, verdicts
from guardfleet.store.jobs import control, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, handoff, leases, publishing
from guardfleet.store.shards.bisect import bisect
from guardfleet.store.shards.completion import Row
from guardfleet.store.shards.handoff import Provisional
from guardfleet.store.shards.leases import Limits
from tests.services.judged import SAFE, UNSURE
from tests.services.stored import MODEL, finish, new_job, scalar, submit, took
from worker.dispatch.poison import give_up

LIMITS = Limits(claims=3, failures=3)


def run(db: Database, keyring: Keyring, job: JobView, deadly: set[int]) -> tuple[JobView, int]:
    """Work on the job until it ends, dying of every shard with a deadly text in it; the job, and how many deaths it took."""
    deaths = 0
    while not views.get(db, job.public_id).state.is_final:
        with db.begin() as connection:
            ready = connection.scalars(f"select shard_no from shard where job_id = {job.id} and state = 0")
        for no in ready:
            held = leases.claim(db, job.id, no, worker="w", lease_s=-1, limits=LIMITS)
            if held is None:
                continue
            if deadly & set(range(held.first_seq, held.first_seq + held.n)):
                deaths += 1
            else:
                texts = leases.load(db, keyring, held)
                assert [row.id for row in texts] == [f"id{held.first_seq + i}" for i in range(held.n)]
                assert finish(db, held)
        leases.rescue(db, leases.overdue(db))
        for key in publishing.exhausted(db, LIMITS):
            give_up(db, keyring, key, LIMITS, lease_s=60)
    return views.get(db, job.public_id), deaths


@given(n=st.integers(1, 20), deadly=st.sets(st.integers(0, 19), max_size=4), shard_texts=st.sampled_from([1, 4, 7, 16]))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_just_the_deadly_texts_end_without_a_verdict(
    db: Database, keyring: Keyring, n: int, deadly: set[int], shard_texts: int
) -> None:
    deadly = {i for i in deadly if i < n}
    done, deaths = run(db, keyring, submit(db, keyring, n, shard_texts=shard_texts), deadly)
    assert done.state is JobState.COMPLETED
    assert (done.done, done.error, done.safe) == (n, len(deadly), n - len(deadly))
    named = f"{MODEL.name}@{MODEL.revision[:12]}"
    assert done.model == (named if len(deadly) < n else None)  # whoever gave the rest up is no model
    rows = list(verdicts.export(db, done))
    assert [row["seq"] for row in rows] == list(range(n))
    assert {row["seq"] for row in rows if row["error"] == "abandoned"} == deadly
    assert [row["id"] for row in rows] == [f"id{i}" for i in range(n)]
    assert deaths <= len(deadly) * (LIMITS.claims + shard_texts.bit_length())


def test_the_opinions_of_a_first_model_are_halved_with_their_texts(db: Database, keyring: Keyring) -> None:
    models.register(db, MODEL)
    job = submit(db, keyring, 4, shard_texts=4, new=new_job(name="cascade", escalate_to=MODEL.name, audit_fraction=0.0))
    first = took(db, job, 0)
    said = Provisional(models.register(db, MODEL), [SAFE, UNSURE, UNSURE, SAFE])
    assert handoff.pass_on(db, keyring, first, said)
    held = took(db, job, 0)
    texts, provisional = handoff.load(db, keyring, held)
    assert bisect(db, keyring, held, texts, provisional, limits=LIMITS)
    for no, ids, severities in ((0, ["id0", "id1"], [0, 1]), (-1, ["id2", "id3"], [1, 0])):
        half = took(db, job, no)
        texts, provisional = handoff.load(db, keyring, half)
        assert [row.id for row in texts] == ids
        assert provisional is not None
        assert [int(judgement.severity) for judgement in provisional.judgements] == severities


def test_a_shard_is_halved_while_texts_still_come_in(db: Database, keyring: Keyring) -> None:
    rows = [(i + 1, PayloadRow(f"id{i}", f"text {i}")) for i in range(2 * COMMIT_SHARDS + 2)]
    with Intake(db, keyring, load_settings(shard_texts=2), new_job(name="test")) as intake:
        intake.add_all(rows[: 2 * COMMIT_SHARDS])
        last = COMMIT_SHARDS - 1  # of what has been committed: the next number is the intake's
        held = leases.claim(db, intake.job.id, last, worker="w", lease_s=60)
        assert held is not None
        assert bisect(db, keyring, held, leases.load(db, keyring, held), None, limits=LIMITS)
        intake.add_all(rows[2 * COMMIT_SHARDS :])
        job = intake.seal()
    done, _ = run(db, keyring, job, set())
    assert (done.state, done.done) == (JobState.COMPLETED, len(rows))


def test_a_late_holder_is_fenced_from_a_halved_shard(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 4, shard_texts=4)
    late = took(db, job, 0, lease_s=-1)
    held = took(db, job, 0)
    assert not bisect(db, keyring, late, leases.load(db, keyring, late), None, limits=LIMITS)
    assert bisect(db, keyring, held, leases.load(db, keyring, held), None, limits=LIMITS)
    for claim in (late, held):
        assert not completion.finish(db, claim, [Row("x", SAFE)] * 4, model_id=models.register(db, MODEL))
    assert finish(db, took(db, job, -1))
    assert finish(db, took(db, job, 0))
    assert views.get(db, job.public_id).state is JobState.COMPLETED
    assert scalar(db, "select count(*) from verdict") == 4


def test_a_cancelled_jobs_shard_is_halved_into_cancelled_ones(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 4, shard_texts=4)
    held = took(db, job, 0)
    control.cancel(db, job.id)
    assert bisect(db, keyring, held, leases.load(db, keyring, held), None, limits=LIMITS)
    assert scalar(db, "select count(*) from shard where state = 3") == 2
    control.settle_cancelled(db, control.cancelling(db))
    assert views.get(db, job.public_id).state is JobState.CANCELLED
