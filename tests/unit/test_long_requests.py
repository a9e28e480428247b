"""Slots for long requests: a limited number per key, each freed again, even that of a stream that never begins."""

import pytest

from api.http.long_requests import Slots
from api.http.problems import ProblemError


def test_a_place_is_free_once_it_is_given_back_or_forgotten() -> None:
    slots = Slots("downloads", of_key=2, in_all=3)
    mine, other = slots.slot(1), slots.slot(1)
    with pytest.raises(ProblemError, match="this key has 2 downloads"):
        slots.slot(1)
    third = slots.slot(2)
    with pytest.raises(ProblemError, match="all keys together"):
        slots.slot(2)
    mine.free()
    mine.free()  # which counts once
    fourth = slots.slot(2)
    with pytest.raises(ProblemError):
        slots.slot(1)
    del other, third, fourth
    with slots.taken(1), slots.taken(1), pytest.raises(ProblemError):
        slots.slot(1)
    again = [slots.slot(1), slots.slot(1), slots.slot(2)]
    assert len(again) == 3
