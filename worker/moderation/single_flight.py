"""Equal texts that are in work in one process at the same time are judged once.

What is committed is found in PostgreSQL (`verdicts.known`); what another task of this process is having judged, here.

Invariants: a key belongs to one scope at a time, from before its owner looks into PostgreSQL until after that has committed, so no
text falls between the two. An owner settles its keys before it waits for those of others, so no two wait for each other; what it
did not settle is dropped with its scope, and who waited for it judges for itself.
"""

import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from guardfleet.domain.verdict import Judgement

Key = Hashable


class Scope:
    """The texts that one task is having judged for its job."""

    def __init__(self, owners: "dict[Key, Scope]", lock: threading.Lock, job_id: int) -> None:
        self._owners, self._lock, self.job_id = owners, lock, job_id
        self._mine: set[Key] = set()
        self._judged: Mapping[Key, Judgement] = {}
        self._settled = threading.Event()

    def take(self, keys: Iterable[Key]) -> "dict[Key, Scope]":
        """Make keys the caller's; returns those that are another task's, with whom to ask for them."""
        theirs = {}
        with self._lock:
            for key in keys:
                owner = self._owners.setdefault(key, self)
                if owner is self:
                    self._mine.add(key)
                else:
                    theirs[key] = owner
        return theirs

    def settle(self, judged: Mapping[Key, Judgement]) -> None:
        """Tell who waits for any of these, or for others of mine."""
        self._judged = judged
        self._settled.set()

    def judgement(self, key: Key) -> Judgement | None:
        """What was said of the text; waits for it. None if nothing was."""
        self._settled.wait()
        return self._judged.get(key)

    def close(self) -> None:
        """Let go of all keys."""
        with self._lock:
            for key in self._mine:
                del self._owners[key]
        self._settled.set()


class SingleFlight:
    """What the tasks of one process are having judged. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: dict[Key, Scope] = {}

    @contextmanager
    def scope(self, job_id: int) -> Iterator[Scope]:
        """For as long as a shard is in work, its commit included."""
        scope = Scope(self._owners, self._lock, job_id)
        try:
            yield scope
        finally:
            scope.close()
