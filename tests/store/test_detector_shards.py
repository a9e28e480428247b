"""Shards that go from judge to judge: taken by the next one alone, and finished once, with each one's word."""

from dataclasses import replace

import pytest

from guardfleet.domain.targets import Targets
from guardfleet.jobs.erase import Asked, erase
from guardfleet.security.encryption import Keyring
from guardfleet.store import models, verdicts
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, handoff, leases, publishing
from guardfleet.store.shards.bisect import bisect
from guardfleet.store.shards.completion import Row
from guardfleet.store.shards.handoff import Provisional, Said
from guardfleet.store.shards.leases import Claim, Limits, Waits
from tests.services.detected import BOTH, CLEAR, ENDS, FINDER, FOUND, detected
from tests.services.judged import SAFE, UNSAFE
from tests.services.stored import MODEL, new_job, scalar, submit, took
from worker.dispatch.poison import give_up


def passed_on(db: Database, keyring: Keyring, n: int) -> tuple[JobView, Claim]:
    """A job's only shard after the guard has judged it: the second text is unsafe, the others are safe."""
    models.register(db, FINDER)
    job = submit(db, keyring, n, shard_texts=n, new=new_job(**BOTH))
    judged = [UNSAFE if i == 1 else SAFE for i in range(n)]
    said = Provisional(models.register(db, MODEL), judged, is_settled=True)
    assert handoff.pass_on(db, keyring, took(db, job, 0), said, to="detector:finder")
    held = leases.claim(db, job.id, 0, worker="w", lease_s=60, by=Waits("detector:finder", takes_any=False))
    assert held is not None
    return job, held


def test_no_shard_is_finished_without_each_detectors_word(db: Database, keyring: Keyring) -> None:
    job = submit(db, keyring, 2, shard_texts=2, new=new_job(**BOTH))
    held, model_id = took(db, job, 0), models.register(db, MODEL)
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
    assert completion.finish(db, late, [Row("x", SAFE)], model_id=models.register(db, MODEL), detected=found) is None
    assert scalar(db, "select count(*) from detection") + scalar(db, "select count(*) from detected") == 0


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
    for no, severities, ends, by_model in ((0, [0, 2], ENDS[:2], {}), (-1, [0, 0], ENDS[2:], {1: 1})):
        _, half = handoff.load(db, keyring, took(db, job, no))
        assert half is not None
        assert [int(judgement.severity) for judgement in half.judgements] == severities
        assert [said.outcome for said in half.said[0].detections] == [said.outcome for said in ends]
        assert half.models == by_model


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
