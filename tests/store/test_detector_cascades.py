"""Two detectors over one job: what the first is sure of is final, the second decides the rest, and each text has one detection."""

from dataclasses import replace
from typing import Any

import pytest

from guardfleet.client.direct import DirectClient
from guardfleet.domain.detection import Detection
from guardfleet.domain.lanes import Lane
from guardfleet.domain.states import JobState, ShardState
from guardfleet.domain.targets import Targets
from guardfleet.errors import NotFoundError, RejectedError
from guardfleet.jobs.erase import Asked, erase
from guardfleet.jobs.intake import Intake
from guardfleet.rows.payload import PayloadRow
from guardfleet.security.encryption import Keyring
from guardfleet.settings import load_settings
from guardfleet.store import models, verdicts
from guardfleet.store.jobs import views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import completion, handoff, leases, publishing
from guardfleet.store.shards.bisect import bisect
from guardfleet.store.shards.completion import Row
from guardfleet.store.shards.handoff import Provisional, Said
from guardfleet.store.shards.leases import Claim, Limits, Waits
from guardfleet.store.shards.publishing import Route
from tests.services.detected import CLEAR, FINDER, FOUND, SHORT
from tests.services.fixtures import SECRET_KEY
from tests.services.judged import SAFE
from tests.services.moderating import moderator
from tests.services.stored import new_job, scalar, submit
from worker.dispatch.poison import give_up
from worker.engine.engine import BatchingEngine
from worker.engine.testing.marked import InstantBackend
from worker.moderation.judge import Judge
from worker.moderation.seats import Seat
from worker.moderation.tasks import Moderator

__all__ = ["moderator"]

ASKED: dict[str, Any] = {
    "detectors": "finder",
    "detector_cascades": "finder=large-finder@0.85",
    "audit_fraction": 1.0,
    "brings_workers": True,
}
LARGE = replace(FINDER, name="large", detector="large-finder")
UNSURE = replace(FOUND, scores=(0.25, 0.75))  # below 0.85; CLEAR, with 0.9, is not
FIRST, SECOND = "detector:finder", "detector:large-finder"
MARKS = ["", "[[doubt]]", "[[overruled]]", "[[found]]", "[[babble]]"]


def seated(db: Database, engines: list[BatchingEngine], name: str, **known: Any) -> Seat:
    """A detector by the instant engine: `finder` has its own name for a model, and every other one judges better."""
    backend = InstantBackend(name="instant" if name == "finder" else "large", detector=name)
    backend.model = replace(backend.model, **known)
    engine = BatchingEngine(backend)
    engine.start()
    engines.append(engine)
    return Seat(Judge(db, engine, load_settings().cache, models.register(db, engine.model)))


def marked(db: Database, keyring: Keyring, **asked: Any) -> JobView:
    """A job of one text of each mark."""
    rows = [PayloadRow(f"id{i}", f"text {i} {mark}") for i, mark in enumerate(MARKS)]
    with Intake(db, keyring, load_settings(), new_job(**ASKED | asked)) as intake:
        intake.add_all(enumerate(rows, 1))
        return intake.seal()


def said_of(db: Database, job: JobView, name: str = "finder") -> list[tuple[Any, ...]]:
    rows = [row["detections"][name] for row in verdicts.export(db, job)]
    return [(said["label"] or said["error"]["code"], said["model"]) for said in rows]


def test_the_second_detector_decides_where_the_first_is_unsure_and_nowhere_else(
    moderator: Moderator, db: Database, keyring: Keyring, engines: list[BatchingEngine]
) -> None:
    job = marked(db, keyring)
    moderator.seats.put_in(seated(db, engines, "large-finder"))
    moderator(job.id, 0)  # it is not its turn
    assert leases.states(db, job.id) == {ShardState.READY: 1}
    moderator.seats.put_in(seated(db, engines, "finder"))
    moderator(job.id, 0)
    assert scalar(db, "select model from shard") == SECOND
    moderator.seats.put_in(seated(db, engines, "large-finder"))
    moderator(job.id, 0)
    done = views.get(db, job.public_id)
    assert done.state is JobState.COMPLETED
    assert said_of(db, done) == [
        ("clear", "instant"),
        ("found", "large"),
        ("clear", "instant"),  # overruled in the sample, which is only compared
        ("found", "instant"),
        ("unparsed", "large"),
    ]
    assert done.detected == {"finder": {"clear": 2, "found": 2, "error": 1}}
    assert done.cascades == {
        "finder": {
            "escalate_to": "large-finder", "confidence_threshold": 0.85, "audit_fraction": 1.0,
            "escalated": 2, "sampled": 3, "agreed": 2,
        }
    }  # fmt: skip
    assert scalar(db, "select count(*) from first_opinion") == 0
    assert scalar(db, "select count(*) from detection") == len(MARKS)


def test_what_either_detector_has_said_of_a_text_is_found_again(
    moderator: Moderator, db: Database, keyring: Keyring, engines: list[BatchingEngine]
) -> None:
    seats = {name: seated(db, engines, name) for name in ("finder", "large-finder")}
    served = []
    for _ in range(2):
        job = marked(db, keyring)
        for seat in seats.values():
            moderator.seats.put_in(seat)
            moderator(job.id, 0)
        rows = verdicts.export(db, views.get(db, job.public_id))
        served.append([row["detections"]["finder"]["served_by"] for row in rows])
    assert served == [["model"] * 4 + ["model"], ["cache"] * 4 + ["model"]]  # an error is never reused


def test_a_second_detector_in_its_own_right_judges_twice_and_each_detector_has_its_row(
    moderator: Moderator, db: Database, keyring: Keyring, engines: list[BatchingEngine]
) -> None:
    job = marked(db, keyring, detectors="finder,large-finder")
    went = []
    for name in ("finder", "large-finder", "large-finder"):
        went.append(scalar(db, "select model from shard"))
        moderator.seats.put_in(seated(db, engines, name))
        moderator(job.id, 0)
    assert went == [FIRST, SECOND, SECOND]
    done = views.get(db, job.public_id)
    assert [label for label, _ in said_of(db, done)] == ["clear", "found", "clear", "found", "unparsed"]
    assert [label for label, _ in said_of(db, done, "large-finder")] == ["clear", "found", "found", "found", "unparsed"]


@pytest.mark.parametrize(
    ("known", "ends"),
    [
        ({"labels": ("found", "clear")}, ["clear", "clear", "clear", "found", "unparsed"]),  # its scores are the other way round
        ({"labels": ("clear", "spotted")}, ["clear", "other_labels", "clear", "found", "other_labels"]),
        ({"neutral": None}, ["clear", "other_labels", "clear", "found", "other_labels"]),
    ],
)
def test_a_second_detector_with_other_labels_gives_errors_and_never_a_label(
    moderator: Moderator, db: Database, keyring: Keyring, engines: list[BatchingEngine], known: dict[str, Any], ends: list[str]
) -> None:
    job = marked(db, keyring)
    for seat in (seated(db, engines, "finder"), seated(db, engines, "large-finder", **known)):
        moderator.seats.put_in(seat)
        moderator(job.id, 0)
    done = views.get(db, job.public_id)
    assert [label for label, _ in said_of(db, done)] == ends
    assert sum(done.detected["finder"].values()) == len(MARKS) if done.detected else False


def passed_on(db: Database, keyring: Keyring, found: list[Detection]) -> tuple[JobView, Claim]:
    """A job's only shard at the second detector, after the first has said this."""
    n = len(found)
    job = submit(db, keyring, n, shard_texts=n, new=new_job(**ASKED | {"audit_fraction": 0.0}))
    held = leases.claim(db, job.id, 0, worker="w", lease_s=60, by=Waits(FIRST, takes_any=False))
    assert held is not None
    said = Provisional(None, [], is_settled=True, said=[Said(0, models.register(db, FINDER), found, is_settled=False)])
    assert handoff.pass_on(db, keyring, held, said, to=SECOND)
    assert not completion.finish(
        db, held, [Row(f"id{i}", SAFE) for i in range(n)], model_id=1, detected=handoff.detected_of(db, said)
    )
    again = leases.claim(db, job.id, 0, worker="w", lease_s=60, by=Waits(SECOND, takes_any=False))
    assert again is not None
    assert handoff.load(db, keyring, again)[1] == said
    return job, again


def test_a_shard_that_was_passed_on_is_published_for_the_second_detector_alone(db: Database, keyring: Keyring) -> None:
    job, held = passed_on(db, keyring, [UNSURE, CLEAR])
    leases.release(db, held)
    bulk = Lane.BULK
    assert {route.model for route in publishing.windows(db)} >= {FIRST, SECOND}
    assert publishing.due(db, Route(bulk, FIRST), limit=9) == []
    assert [bell.shard_no for bell in publishing.due(db, Route(bulk, SECOND), limit=9)] == [0]
    assert leases.claim(db, job.id, 0, worker="w", lease_s=60, by=Waits(FIRST, takes_any=False)) is None


def test_halves_know_what_is_still_open(db: Database, keyring: Keyring) -> None:
    job, held = passed_on(db, keyring, [UNSURE, CLEAR, CLEAR, UNSURE])
    texts, first = handoff.load(db, keyring, held)
    assert bisect(db, keyring, held, texts, first, limits=Limits(6, 5))
    for no, expected in ((0, [UNSURE, CLEAR]), (-1, [CLEAR, UNSURE])):
        half = leases.claim(db, job.id, no, worker="w", lease_s=60, by=Waits(SECOND, takes_any=False))
        assert half is not None
        _, said = handoff.load(db, keyring, half)
        assert said is not None
        assert (said.said[0].detections, said.said[0].is_settled) == (expected, False)


def test_a_shard_that_kills_every_second_detector_keeps_what_the_first_was_sure_of(db: Database, keyring: Keyring) -> None:
    job, held = passed_on(db, keyring, [CLEAR, UNSURE, SHORT, CLEAR])
    leases.release(db, held)
    for _ in range(3):  # the shard, its halves, and theirs
        with db.begin() as connection:
            connection.execute("update shard set claims = 99")
        for key in publishing.exhausted(db, Limits(6, 5)):
            give_up(db, keyring, key, Limits(6, 5), lease_s=60)
    done = views.get(db, job.public_id)
    assert done.state is JobState.COMPLETED
    assert done.detected == {"finder": {"clear": 2, "too_short": 1, "error": 1}}
    found = [(row["detections"]["finder"]["outcome"], row["detections"]["finder"]["model"]) for row in verdicts.export(db, done)]
    assert found == [("labelled", "f"), ("error", "nobody"), ("too_short", "f"), ("labelled", "f")]


def test_an_erased_text_is_not_asked_about_again(
    moderator: Moderator, db: Database, keyring: Keyring, engines: list[BatchingEngine]
) -> None:
    job, held = passed_on(db, keyring, [UNSURE, UNSURE])
    leases.release(db, held)
    erase(db, keyring, Asked(1, Targets(ids=("id0",)), job.label))
    moderator.seats.put_in(seated(db, engines, "large-finder"))
    moderator(job.id, 0)
    done = views.get(db, job.public_id)
    assert [label for label, _ in said_of(db, done)] == ["erased", "clear"]
    assert done.cascades["finder"]["escalated"] == 1


def submitted(db: Database, keyring: Keyring, **asked: Any) -> JobView:
    client = DirectClient(db, keyring, load_settings(secret_key=SECRET_KEY))
    options = new_job(**{name: value for name, value in (ASKED | asked).items() if name != "brings_workers"}).options
    return client.submit(["a"], options).job


def test_a_cascade_to_nobody_or_to_other_labels_is_refused_before_anything_is_read(db: Database, keyring: Keyring) -> None:
    models.register(db, FINDER)
    with pytest.raises(NotFoundError, match="no worker has served a detector 'large-finder' yet"):
        submitted(db, keyring)
    models.register(db, replace(LARGE, revision="0", labels=("clear", "spotted")))
    with pytest.raises(RejectedError, match="large-finder answers in other labels than finder: clear, spotted instead"):
        submitted(db, keyring)
    models.register(db, replace(LARGE, labels=("found", "clear")))
    assert submitted(db, keyring).detector_cascades == ["finder=large-finder@0.85"]
    with pytest.raises(RejectedError, match="a second detector for other, which is not among"):
        submitted(db, keyring, detector_cascades="other=large-finder")
