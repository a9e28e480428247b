"""Which model judges a shard, and when one that was replaced is stopped."""

import threading
from typing import Any, cast

import pytest
from celery.exceptions import Reject

from guardfleet.domain.verdict import Model
from tests.services.patience import patience
from worker.moderation.seats import Beside, Seat, Seats, is_among


class Stoppable:
    """An engine that says whether it was stopped."""

    def __init__(self, revision: str) -> None:
        self.model = Model("m", revision, "p")
        self.drained = self.stopped = False

    def drain(self) -> None:
        self.drained = True

    def stop(self, timeout_s: float = 0) -> None:
        self.stopped = True

    def busy_s(self) -> float:
        return 0.0


class Holder:
    """As much of a judge as seats look at."""

    def __init__(self, revision: str) -> None:
        self.engine = Stoppable(revision)
        self.model = self.engine.model


def seat(revision: str, deployment_id: int | None = None) -> Seat:
    return Seat(cast("Any", Holder(revision)), deployment_id)


def is_stopped(one: Seat) -> bool:
    return cast("Stoppable", one.judge.engine).stopped


def test_a_share_of_the_shards_is_judged_by_the_canary_and_a_shard_always_by_the_same() -> None:
    seats = Seats(old := seat("1"))
    seats.put_beside(Beside(new := seat("2", 7), 0.2, judges=True))
    by_new = []
    for shard in range(2000):
        with seats.take(5, shard) as judges, seats.take(5, shard) as again:
            assert judges == again
            assert old.judge in judges
            by_new.append(judges[0] is new.judge)
    assert 300 < sum(by_new) < 500
    assert by_new == [is_among(7, 5, shard, share=0.2) for shard in range(2000)]
    assert by_new != [is_among(8, 5, shard, share=0.2) for shard in range(2000)]  # each deployment has others


def test_a_shadow_judges_no_shard() -> None:
    seats = Seats(old := seat("1"))
    seats.put_beside(Beside(seat("2", 7), 1.0, judges=False))
    with seats.take(1, 1) as judges:
        assert judges == [old.judge]
    assert [model.revision for model in seats.in_use()] == ["1"]


def test_a_model_that_was_replaced_ends_after_its_last_shard() -> None:
    seats = Seats(old := seat("1"))
    stopped = threading.Event()

    def stop() -> None:
        assert seats.stop_retired(timeout_s=patience(20))
        stopped.set()

    with seats.take(1, 1) as before:
        seats.put_in(new := seat("2", 1))
        threading.Thread(target=stop).start()
        with seats.take(1, 2) as after:
            assert (before, after) == ([old.judge], [new.judge])
        assert not seats.stop_retired(timeout_s=0)
        assert not is_stopped(old)
    assert stopped.wait(patience(20))
    assert is_stopped(old)
    assert not is_stopped(new)


def test_what_is_beside_can_be_put_in_and_loses_nothing() -> None:
    seats = Seats(seat("1"))
    new = seat("2", 7)
    seats.put_beside(Beside(new, 0.5, judges=True))
    seats.put_in(new)
    assert seats.beside is None
    assert seats.main is new
    assert seats.stop_retired(timeout_s=0)
    assert not is_stopped(new)


def test_without_a_model_messages_go_back_and_an_old_one_can_return() -> None:
    seats = Seats(old := seat("1"))
    seats.put_in(None)
    with pytest.raises(Reject) as refused, seats.take(1, 1):
        pass
    assert refused.value.requeue
    seats.put_in(old)
    assert seats.stop_retired(timeout_s=0)
    assert not is_stopped(old)
    with seats.take(1, 1) as judges:
        assert judges == [old.judge]


def test_a_model_that_comes_while_the_process_ends_is_drained_too() -> None:
    seats = Seats(seat("1"))
    seats.drain()
    seats.put_in(late := seat("2"))
    assert cast("Stoppable", late.judge.engine).drained
