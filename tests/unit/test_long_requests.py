"""Places for what takes long: so many of a key, and each free again, also that of a stream which never begins."""

import pytest

from api.http.long_requests import Places
from api.http.problems import ProblemError


def test_a_place_is_free_once_it_is_given_back_or_forgotten() -> None:
    places = Places("downloads", of_key=2, in_all=3)
    mine, other = places.place(1), places.place(1)
    with pytest.raises(ProblemError, match="this key has 2 downloads"):
        places.place(1)
    third = places.place(2)
    with pytest.raises(ProblemError, match="all keys together"):
        places.place(2)
    mine.free()
    mine.free()  # which counts once
    fourth = places.place(2)
    with pytest.raises(ProblemError):
        places.place(1)
    del other, third, fourth
    with places.taken(1), places.taken(1), pytest.raises(ProblemError):
        places.place(1)
    again = [places.place(1), places.place(1), places.place(2)]
    assert len(again) == 3
