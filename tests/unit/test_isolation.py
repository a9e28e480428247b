"""Suspects run alone and do not harm other shards."""

import threading

import pytest

from tests.services.patience import patience
from worker.moderation.isolation import Isolation

WAIT_S = patience(10)


def run(target: object) -> threading.Thread:
    assert callable(target)
    thread = threading.Thread(target=target)
    thread.start()
    return thread


def test_ordinary_shards_run_together() -> None:
    isolation, both = Isolation(), threading.Barrier(2, timeout=WAIT_S)
    met: list[bool] = []

    def ordinary() -> None:
        with isolation.enter():
            both.wait()
            met.append(True)

    for thread in [run(ordinary), run(ordinary)]:
        thread.join(2 * WAIT_S)
    assert met == [True, True]


def test_a_suspect_waits_for_what_runs_and_nothing_comes_in_until_it_has_left() -> None:
    isolation = Isolation()
    inside, finish, asked, alone, leave, late = (threading.Event() for _ in range(6))

    def ordinary() -> None:
        with isolation.enter():
            inside.set()
            assert finish.wait(WAIT_S)

    def suspect() -> None:
        with isolation.enter() as wait_for_exclusive:
            asked.set()
            assert wait_for_exclusive()
            assert finish.is_set()
            alone.set()
            assert leave.wait(WAIT_S)

    def latecomer() -> None:
        with isolation.enter():
            assert leave.is_set()
            late.set()

    threads = [run(ordinary)]
    assert inside.wait(WAIT_S)
    threads.append(run(suspect))
    assert asked.wait(WAIT_S)
    assert not alone.is_set()
    finish.set()
    assert alone.wait(WAIT_S)
    threads.append(run(latecomer))
    assert not late.is_set()
    leave.set()
    assert late.wait(WAIT_S)
    for thread in threads:
        thread.join(WAIT_S)


def test_of_two_suspects_the_second_is_turned_away_and_the_first_waits_for_it_to_leave() -> None:
    isolation = Isolation()
    both, alone, gave_back = threading.Barrier(2), threading.Event(), threading.Event()
    turned_away: list[bool] = []

    def suspect() -> None:
        with isolation.enter() as wait_for_exclusive:
            both.wait(WAIT_S)
            if wait_for_exclusive():
                assert gave_back.is_set()
                alone.set()
            else:
                turned_away.append(True)
                gave_back.set()  # the claim is given back before the door is left

    threads = [run(suspect), run(suspect)]
    for thread in threads:
        thread.join(WAIT_S)
    assert alone.is_set()
    assert turned_away == [True]


def test_a_suspect_that_raises_leaves_the_door_open() -> None:
    isolation = Isolation()
    with pytest.raises(ValueError), isolation.enter() as wait_for_exclusive:  # noqa: PT011, PT012
        assert wait_for_exclusive()
        raise ValueError
    with isolation.enter() as wait_for_exclusive:
        assert wait_for_exclusive()
