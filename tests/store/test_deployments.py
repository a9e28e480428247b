"""Deployments as rows: verbs in any order keep to the table, each leaves its row in the trail, and workers take turns."""

import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from guardfleet.domain.states import TRANSITIONS, DeploymentState, WorkerState
from guardfleet.errors import ConfigurationError, NotFoundError, RejectedError
from guardfleet.sampling.agreement import Compared, Ruling
from guardfleet.security.encryption import Keyring
from guardfleet.store import audit, fleet, rotation
from guardfleet.store.audit import Wanted
from guardfleet.store.deployments import comparisons, deployments, seats
from guardfleet.store.deployments.comparisons import Batch, Cell, Place
from guardfleet.store.deployments.row import Asked, Deployment
from guardfleet.store.deployments.seats import Seat
from guardfleet.store.fleet import Sighting
from guardfleet.store.postgres.database import Database
from tests.services.fixtures import SECRET_KEY
from tests.services.poison import change
from tests.services.stored import scalar

EDGES = TRANSITIONS[DeploymentState]


def asked(db: Database, keyring: Keyring, state: DeploymentState = DeploymentState.ROLLING, **more: Any) -> Deployment:
    return deployments.begin(db, keyring, Asked(**{"detector": "guard", "model": "m", "state": state, **more}))


def now(db: Database, one: Deployment) -> Deployment:
    return deployments.get(db, one.label, detector=one.detector)


def trail(db: Database, one: Deployment) -> list[str]:
    return [event.action for event in audit.events(db, Wanted(subject=one.label))]


def worker(db: Database, name: str, serves: int | None = None, **more: Any) -> Seat:
    """A worker that was just heard of."""
    fleet.report(db, Sighting(name, WorkerState.READY, "m", "1"))
    one = Seat(**{
        "worker": name, "detector": "guard", "deployment_id": serves, "beside_id": None, "follows": True, "reason": None, **more
    })  # fmt: skip
    seats.report(db, one)
    return one


def settle(db: Database, one: Deployment) -> bool:
    return deployments.settle(db, one, partial(seats.all_serve, detector=one.detector, deployment_id=one.id))


def batch(n: int, agreed: int) -> Batch:
    return Batch({Cell("en", "severity", "safe", "safe"): agreed}, compared=Compared(n, agreed))


@pytest.mark.parametrize("seed", range(8))
def test_verbs_in_any_order_keep_to_the_table_and_leave_one_active_and_one_candidate(
    db: Database, keyring: Keyring, seed: int
) -> None:
    rng = random.Random(seed)
    known: list[Deployment] = []

    def begin() -> None:
        state = rng.choice([DeploymentState.SHADOW, DeploymentState.CANARY, DeploymentState.ROLLING])
        known.append(asked(db, keyring, state, share=0.1, canary_texts=60, min_agreement=0.9))

    def some() -> Deployment:
        return rng.choice(known)

    acts: dict[str, Callable[[], object]] = {
        "begin": begin,
        "promote": lambda: deployments.promote(db, some()),
        "stop": lambda: deployments.stop(db, some()),
        "halt": lambda: deployments.halt(db, some(), "why"),
        "settle": lambda: deployments.settle(db, some(), lambda _: True),
        "roll_back": lambda: deployments.roll_back(db, "guard"),
        "advance": lambda: comparisons.add(db, some().id, batch(60, rng.choice([20, 60]))),
    }
    begin()
    for _ in range(60):
        before = {one.id: one.told for one in deployments.every(db)}
        verb = rng.choice(list(acts))
        n = scalar(db, "select count(*) from audit_event")
        with suppress(RejectedError):
            acts[verb]()
        after = {one.id: one.told for one in deployments.every(db)}
        moves = {(before[key], state) for key, state in after.items() if key in before and before[key] is not state}
        assert moves <= set(EDGES.get(verb, ())), verb
        assert scalar(db, "select count(*) from audit_event") - n == bool(before != after), verb
        states = list(after.values())
        assert states.count(DeploymentState.ACTIVE) <= 1
        assert sum(state < DeploymentState.ACTIVE for state in states) <= 1


def test_a_second_candidate_is_refused_and_another_detector_has_its_own(db: Database, keyring: Keyring) -> None:
    first = asked(db, keyring)
    with pytest.raises(RejectedError, match="under way"):
        asked(db, keyring, DeploymentState.SHADOW)
    other = asked(db, keyring, detector="ai-text")
    assert deployments.standing(db, "guard").candidate == first
    assert deployments.standing(db, "ai-text").candidate == other
    with pytest.raises(NotFoundError):
        deployments.get(db, "deployment_99", detector="guard")
    with pytest.raises(NotFoundError):
        deployments.get(db, "latest", detector="guard")


def test_going_back_takes_what_is_tried_first_then_what_was_before_and_at_last_the_settings(db: Database, keyring: Keyring) -> None:
    one, two = asked(db, keyring), None
    assert deployments.settle(db, one, lambda _: True)
    two = asked(db, keyring)
    assert deployments.settle(db, two, lambda _: True)
    assert now(db, one).told is DeploymentState.SUPERSEDED
    three = asked(db, keyring)
    assert [gone.id for gone in deployments.roll_back(db, "guard") if gone] == [three.id, two.id]
    assert [gone.id for gone in deployments.roll_back(db, "guard") if gone] == [two.id, one.id]
    gone, served = deployments.roll_back(db, "guard")
    assert (gone.id, served) == (one.id, None)
    with pytest.raises(RejectedError, match="nothing to roll back"):
        deployments.roll_back(db, "guard")
    assert trail(db, two) == ["deployment.create", "deployment.settle", "deployment.roll_back"]


def test_going_back_never_leads_to_one_that_was_halted_stopped_or_rolled_back(db: Database, keyring: Keyring) -> None:
    ends: list[Callable[[Deployment], object]] = [
        lambda one: deployments.halt(db, one, "its numbers are not finite"),
        lambda one: deployments.stop(db, one),
        lambda _: deployments.roll_back(db, "guard"),
    ]
    served = [asked(db, keyring)]
    deployments.settle(db, served[0], lambda _: True)
    for end in ends:
        end(asked(db, keyring))
        served.append(asked(db, keyring))
        deployments.settle(db, served[-1], lambda _: True)
    for gone, target in zip(reversed(served), [*reversed(served[:-1]), None], strict=True):
        was, back = deployments.roll_back(db, "guard")
        assert (was.id, back and back.id) == (gone.id, target and target.id)


def test_it_is_active_once_all_workers_that_follow_serve_it(db: Database, keyring: Keyring) -> None:
    one = asked(db, keyring)
    assert not settle(db, one)  # nobody serves it
    worker(db, "worker@a:1", one.id)
    worker(db, "worker@a:2", None)
    worker(db, "worker@b:3", None, follows=False)
    worker(db, "worker@b:4", None, detector="ai-text")
    assert not settle(db, one)
    worker(db, "worker@a:2", one.id)
    assert settle(db, one)
    assert not settle(db, one)
    assert now(db, one).told is DeploymentState.ACTIVE


def test_few_workers_load_at_a_time_and_one_of_a_host(db: Database) -> None:
    there = [worker(db, f"worker@host{i % 4}:{i}") for i in range(8)]
    assert seats.take_turn(db, there[0], alone=True)
    assert seats.take_turn(db, there[0], alone=True)  # again: it has it
    assert not seats.take_turn(db, there[4], alone=False)  # the same host
    assert seats.take_turn(db, there[1], alone=False)  # a quarter of eight
    assert not seats.take_turn(db, there[2], alone=False)
    seats.end_turn(db, there[0].worker)
    assert seats.take_turn(db, there[2], alone=False)


def test_a_turn_of_a_worker_that_died_or_takes_for_ever_is_over(db: Database) -> None:
    one, two = worker(db, "worker@a:1"), worker(db, "worker@b:2")
    assert seats.take_turn(db, one, alone=False)
    assert not seats.take_turn(db, two, alone=False)
    change(db, "update seat set seen_at = now() - interval '10 s' where worker = 'worker@a:1'")
    assert seats.take_turn(db, two, alone=False)


def test_a_worker_goes_without_a_model_only_while_another_one_serves(db: Database) -> None:
    one = worker(db, "worker@a:1")
    assert not seats.take_turn(db, one, alone=True)
    assert seats.take_turn(db, one, alone=False)
    worker(db, "worker@b:2")
    assert seats.take_turn(db, one, alone=True)


def test_a_worker_with_other_files_than_the_first_is_refused(db: Database, keyring: Keyring) -> None:
    one = asked(db, keyring)
    deployments.pin(db, one, name="m", revision="abc")
    deployments.pin(db, one, name="m", revision="int8:abc")  # the same files, in the precision of that worker's settings
    with pytest.raises(ConfigurationError, match=r"has m@abd where another has m@abc"):
        deployments.pin(db, one, name="m", revision="abd")
    assert now(db, one).version == "m@abc"


def test_counts_of_a_comparison_add_up_and_rule_a_canary_but_no_shadow(db: Database, keyring: Keyring) -> None:
    shadow = asked(db, keyring, DeploymentState.SHADOW, detector="x", share=0.1)
    assert comparisons.add(db, shadow.id, batch(500, 10)) is Ruling.WAIT
    canary = asked(db, keyring, DeploymentState.CANARY, share=0.1, canary_texts=100, min_agreement=0.9)
    places = [Place(1, seq, "safe", "unsafe") for seq in range(300)]
    cells = {Cell("en", "severity", "safe", "safe"): 48, Cell("en", "severity", "safe", "unsafe"): 2}
    for skipped in (3, 0):
        ruled = comparisons.add(db, canary.id, Batch(cells, places, Compared(50, 48), 1.0, 2.0, skipped))
    assert ruled is Ruling.ADVANCE
    found = now(db, canary)
    assert (found.told, found.compared, found.agreed, found.live_s, found.candidate_s, found.skipped) == (
        DeploymentState.ROLLING, 100, 96, 2.0, 4.0, 3,
    )  # fmt: skip
    assert comparisons.cells(db, canary.id) == {cell: 2 * n for cell, n in cells.items()}
    assert scalar(db, "select count(*) from disagreement") == comparisons.MOST_PLACES
    assert comparisons.places(db, canary.id, limit=5) == []  # of a job that is gone
    comparisons.add(db, canary.id, batch(50, 0))  # it is no canary any more
    assert now(db, canary).compared == 100
    assert trail(db, canary) == ["deployment.create", "deployment.advance"]


def test_golden_texts_are_encrypted_follow_the_secret_key_and_go_with_the_deployment(db: Database, keyring: Keyring) -> None:
    from guardfleet.security.encryption import new_secret_key
    from guardfleet.store import installation

    installation.require_key(db, keyring)
    one = asked(db, keyring, golden=[["c4n4ry", True]], golden_accuracy=1.0)
    newer = Keyring(new_secret_key(), SECRET_KEY)
    rotation.rotate(db, newer)
    assert deployments.golden(db, newer, one.id) == [["c4n4ry", True]]
    assert "c4n4ry" not in str(scalar(db, "select deployment::text from deployment"))
    deployments.halt(db, one, "why")
    assert deployments.golden(db, newer, one.id) == []
