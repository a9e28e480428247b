"""Places for what takes a connection for long: so many for each key, and for all keys together less than there are connections."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from api.problems import ProblemError

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

    @contextmanager
    def held(self, key_id: int) -> Iterator[None]:
        """Hold a place that was asked for before."""
        self._taken[key_id] += 1
        try:
            yield
        finally:
            self._taken[key_id] -= 1
            if not self._taken[key_id]:
                del self._taken[key_id]
