"""Suspects run alone; nobody else pays for them."""

import threading

import pytest

from worker.quarantine import SUSPECT_CLAIMS, Quarantine

WAIT_S = 10


def test_ordinary_shards_run_together() -> None:
    quarantine = Quarantine()
    with quarantine.enter(claims=1) as first, quarantine.enter(claims=1) as second:
        assert (first, second) == (True, True)


def test_who_comes_while_a_suspect_runs_is_turned_away_and_admitted_afterwards() -> None:
    quarantine = Quarantine()
    with quarantine.enter(claims=SUSPECT_CLAIMS) as suspect:
        assert suspect
        with quarantine.enter(claims=1) as ordinary, quarantine.enter(claims=SUSPECT_CLAIMS) as another:
            assert (ordinary, another) == (False, False)
    with quarantine.enter(claims=1) as ordinary:
        assert ordinary


def test_a_suspect_waits_for_what_runs_and_lets_nothing_in_before_it() -> None:
    quarantine = Quarantine()
    running, finish, alone = threading.Event(), threading.Event(), threading.Event()

    def ordinary() -> None:
        with quarantine.enter(claims=1):
            running.set()
            assert finish.wait(WAIT_S)

    def suspect() -> None:
        with quarantine.enter(claims=SUSPECT_CLAIMS) as admitted:
            assert admitted
            assert finish.is_set()
            alone.set()

    first = threading.Thread(target=ordinary)
    first.start()
    assert running.wait(WAIT_S)
    second = threading.Thread(target=suspect)
    second.start()
    while True:  # until the suspect waits at the door
        with quarantine.enter(claims=1) as late:
            if not late:
                break
    assert not alone.is_set()
    finish.set()
    assert alone.wait(WAIT_S)
    first.join(WAIT_S)
    second.join(WAIT_S)


def test_a_suspect_that_raises_leaves_the_door_open() -> None:
    quarantine = Quarantine()
    with pytest.raises(ValueError), quarantine.enter(claims=SUSPECT_CLAIMS):  # noqa: PT011
        raise ValueError
    with quarantine.enter(claims=SUSPECT_CLAIMS) as admitted:
        assert admitted
