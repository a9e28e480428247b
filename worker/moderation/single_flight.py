"""Single-flight judging: equal texts that are in work in one process at the same time are judged once.

Committed verdicts are found in PostgreSQL (`verdicts.known`); texts that another task of this process is having judged, here.

Invariants: a key belongs to one scope at a time, from before its owner queries PostgreSQL until after the owner has committed, so
no text falls between the two. An owner settles its keys before it waits for those of others, so no two wait for each other; keys
that it did not settle are dropped with its scope, and whoever waited for them judges for itself.
"""

import threading
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Key = Hashable


class Scope:
    """The texts that one task is having judged for its job."""

    def __init__(self, owners: "dict[Key, Scope]", lock: threading.Lock, job_id: int) -> None:
        self._owners, self._lock, self.job_id = owners, lock, job_id
        self._mine: set[Key] = set()
        self._judged: Mapping[Key, Any] = {}
        self._settled = threading.Event()
        self._beside: list[Scope] = []
        self.device_s = 0.0  # the texts' share of the device's time, added up by the task

    def beside(self) -> "Scope":
        """Return a scope of the same task for what it has judged after this, by another policy; both are closed together."""
        other = Scope(self._owners, self._lock, self.job_id)
        self._beside.append(other)
        return other

    def take(self, keys: Iterable[Key]) -> "dict[Key, Scope]":
        """Take ownership of keys; return those that other tasks own, each with its owner's scope."""
        theirs = {}
        with self._lock:
            for key in keys:
                owner = self._owners.setdefault(key, self)
                if owner is self:
                    self._mine.add(key)
                else:
                    theirs[key] = owner
        return theirs

    def settle(self, judged: Mapping[Key, Any]) -> None:
        """Publish judgements of own keys, and wake everyone who waits for any own key."""
        self._judged = judged
        self._settled.set()

    def judgement(self, key: Key) -> Any | None:
        """Wait until the owner has settled, and return the judgement of the text; None if there is none."""
        self._settled.wait()
        return self._judged.get(key)

    def close(self) -> None:
        """Give up ownership of all keys, and wake everyone who waits."""
        with self._lock:
            for key in self._mine:
                del self._owners[key]
        self._settled.set()
        for other in self._beside:
            other.close()


class SingleFlight:
    """The texts that the tasks of one process are having judged. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owners: dict[Key, Scope] = {}

    @contextmanager
    def scope(self, job_id: int) -> Iterator[Scope]:
        """Open a scope for as long as a shard is in work, its commit included."""
        scope = Scope(self._owners, self._lock, job_id)
        try:
            yield scope
        finally:
            scope.close()
