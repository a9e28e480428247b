"""Places for what takes a connection for long: so many for each key, and for all keys together less than there are connections."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from api.http.problems import ProblemError

RETRY_S = 5


class Places:
    """Who has how many. To be used on one event loop."""

    def __init__(self, what: str, *, of_key: int, in_all: int) -> None:
        self._what, self._of_key, self._in_all = what, of_key, in_all
        self._taken: Counter[int] = Counter()  # by key

    def require(self, key_id: int) -> None:
        """Raise ProblemError 429 unless there is one more place."""
        mine, is_full = self._taken[key_id], self._taken.total() >= self._in_all
        if mine >= self._of_key or is_full:
            whose = "all keys together have" if is_full else "this key has"
            detail = f"{whose} {self._in_all if is_full else mine} {self._what} at once, which is the most."
            raise ProblemError(429, f"too_many_{self._what}", detail, headers={"Retry-After": str(RETRY_S)})

    @contextmanager
    def taken(self, key_id: int) -> Iterator[None]:
        """Hold a place; ProblemError 429 where there is none."""
        self.require(key_id)
        with self.held(key_id):
            yield

    def place(self, key_id: int) -> "Place":
        """A place, held until it is freed or forgotten; ProblemError 429 where there is none."""
        self.require(key_id)
        return Place(self, key_id)

    @contextmanager
    def held(self, key_id: int) -> Iterator[None]:
        """Hold a place that was asked for before."""
        place = Place(self, key_id)
        try:
            yield
        finally:
            place.free()

    def move(self, key_id: int, by: int) -> None:
        """Count one more, or one less."""
        self._taken[key_id] += by
        if not self._taken[key_id]:
            del self._taken[key_id]


class Place:
    """One that is taken. A stream that never begins ends no `with`: its place is free once nobody has it any more."""

    def __init__(self, places: Places, key_id: int) -> None:
        self._places, self._key_id, self._is_free = places, key_id, False
        places.move(key_id, 1)

    def free(self) -> None:
        """Give it back; safe to call twice."""
        if not self._is_free:
            self._is_free = True
            self._places.move(self._key_id, -1)

    def __del__(self) -> None:
        """Give it back."""
        self.free()
