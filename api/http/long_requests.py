"""Requests that take long: how long their callers wait, and slots, a limit per key and one for all keys."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request

from api.http.problems import ProblemError

RETRY_S = 5
LONGEST_WAIT_S = 60


def wait_s(request: Request, *, otherwise: int = 0, longest: int = LONGEST_WAIT_S) -> int:
    """Return the seconds of `Prefer: wait=N`, at most the longest."""
    for preference in request.headers.get("prefer", "").split(","):
        name, _, value = preference.strip().partition("=")
        if name == "wait" and value.isascii() and value.isdigit() and len(value) < 6:  # noqa: PLR2004
            return min(int(value), longest)
    return otherwise


class Slots:
    """Counts the slots each key holds. For one event loop only."""

    def __init__(self, what: str, *, of_key: int, in_all: int) -> None:
        self._what, self._of_key, self._in_all = what, of_key, in_all
        self._taken: Counter[int] = Counter()  # by key

    def require(self, key_id: int) -> None:
        """Raise ProblemError 429 unless a slot is free."""
        mine, is_full = self._taken[key_id], self._taken.total() >= self._in_all
        if mine >= self._of_key or is_full:
            whose = "all keys together have" if is_full else "this key has"
            detail = f"{whose} {self._in_all if is_full else mine} {self._what} at once, which is the limit: try again later."
            raise ProblemError(429, f"too_many_{self._what}", detail, headers={"Retry-After": str(RETRY_S)})

    @contextmanager
    def taken(self, key_id: int) -> Iterator[None]:
        """Hold a slot; ProblemError 429 if none is free."""
        self.require(key_id)
        with self.held(key_id):
            yield

    def slot(self, key_id: int) -> "Slot":
        """Return a slot, held until it is freed or forgotten; ProblemError 429 if none is free."""
        self.require(key_id)
        return Slot(self, key_id)

    @contextmanager
    def held(self, key_id: int) -> Iterator[None]:
        """Hold a slot that was required before."""
        slot = Slot(self, key_id)
        try:
            yield
        finally:
            slot.free()

    def move(self, key_id: int, by: int) -> None:
        """Change the count of a key."""
        self._taken[key_id] += by
        if not self._taken[key_id]:
            del self._taken[key_id]


class Slot:
    """A slot that is held. A stream that never begins never leaves its `with`, so deleting the slot frees it too."""

    def __init__(self, slots: Slots, key_id: int) -> None:
        self._slots, self._key_id, self._is_free = slots, key_id, False
        slots.move(key_id, 1)

    def free(self) -> None:
        """Free the slot; safe to call twice."""
        if not self._is_free:
            self._is_free = True
            self._slots.move(self._key_id, -1)

    def __del__(self) -> None:
        """Free the slot."""
        self.free()
