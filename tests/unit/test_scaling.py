"""How many workers are wanted, and which jobs will be late."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scaling import SCENARIOS
from guardfleet.domain.scaling import HEADROOM, HORIZON_S, Due, Fleet, OpenWork, lateness, wanted

RATE = 100_000.0
PIECES = st.lists(st.builds(Due, st.floats(0, 1e12), st.floats(-1e4, 1e5)), max_size=8)
FLEETS = st.builds(Fleet, st.integers(0, 50), st.integers(0, 50), st.integers(0, 100), st.one_of(st.none(), st.floats(1.0, 1e6)))


@given(PIECES, FLEETS)
def test_no_worker_that_holds_a_shard_or_loads_a_model_is_given_up(pieces: list[Due], fleet: Fleet) -> None:
    assert wanted(pieces, fleet) >= fleet.busy + fleet.loading


@given(PIECES, FLEETS)
def test_work_never_asks_for_nobody_and_no_work_asks_for_no_more(pieces: list[Due], fleet: Fleet) -> None:
    if any(piece.tokens > 0 for piece in pieces):
        assert wanted(pieces, fleet) >= 1
    else:
        assert wanted(pieces, fleet) == fleet.busy + fleet.loading


@given(PIECES, FLEETS, st.builds(Due, st.floats(1, 1e12), st.floats(-1e4, 1e5)))
def test_more_work_never_asks_for_fewer(pieces: list[Due], fleet: Fleet, more: Due) -> None:
    assert wanted([*pieces, more], fleet) >= wanted(pieces, fleet)


@given(st.floats(1e6, 1e11), st.floats(600, 1e5))
def test_what_is_there_is_enough_if_it_ends_the_work_in_time(tokens: float, seconds: float) -> None:
    ready = math.ceil(HEADROOM * tokens / (RATE * seconds))
    assert wanted([Due(tokens, seconds)], Fleet(ready=ready, tokens_per_s=RATE)) <= max(1, ready)


def test_the_nearest_deadline_decides_when_it_is_the_tightest() -> None:
    fleet = Fleet(ready=100, tokens_per_s=RATE)
    tight, loose = Due(10 * RATE * 600, 600), Due(RATE * 600, 8 * HORIZON_S)
    assert wanted([tight, loose], fleet) == math.ceil(10 * HEADROOM)
    assert wanted([loose], fleet) == 1


def test_one_worker_measures_what_nobody_has_measured() -> None:
    assert wanted([Due(1e12, 60)], Fleet()) == 1


def test_a_job_is_late_by_its_own_pace_or_by_what_is_before_it() -> None:
    begun = OpenWork(tokens=1000, tokens_per_s=10, seconds=40)
    waits = OpenWork(tokens=1000, tokens_per_s=0, seconds=300)
    assert lateness([begun, waits], 10) == [60, -100]
    assert lateness([waits], 10, begins_in_s=250) == [50]
    assert lateness([waits], None, begins_in_s=120) == [-180], "nobody knows how long it takes"
    assert lateness([OpenWork(1000, 0, 60)], None, begins_in_s=120) == [60], "but not even a start is in time"


@pytest.mark.parametrize("seconds", [-5.0, 0.0, 1e-9])
def test_a_deadline_that_is_over_asks_for_a_finite_fleet(seconds: float) -> None:
    assert 1 <= wanted([Due(1e15, seconds)], Fleet(tokens_per_s=RATE)) <= 10_000


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_autoscaler_that_follows_ends_no_worker_at_work_and_meets_each_deadline(name: str) -> None:
    found = SCENARIOS[name].run()
    assert (found.busy_ended, found.loading_ended, found.zero_with_work) == (0, 0, 0)
    assert found.turns <= 1, "up, and down at the end"
    assert found.late_s <= 0
    if found.optimum_hours > 1:
        assert found.worker_hours <= 1.1 * found.optimum_hours
