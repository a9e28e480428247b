"""Suspects run alone.

A shard that was claimed before and never came back may have killed its worker; other shards must not lose attempts because of it,
and it must not bring down others again.

Invariants: a suspect runs only while no other shard of this process is between its claim and its end, so a crash then counts
against the suspect alone; a shard that is turned away gives back its claim before it leaves, and so before the suspect runs. Once a
shard has killed the engine, those that wait to enter claim nothing any more (`Moderator.dying`).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SUSPECT_CLAIMS = 2  # this claim included: an earlier one was neither finished, failed nor released


class Isolation:
    """Lets ordinary shards run together, and each suspect alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._suspect = False  # one of those inside is a suspect that runs or waits to be alone

    @contextmanager
    def enter(self) -> Iterator[Callable[[], bool]]:
        """Enter before claiming a shard; waits while a suspect is inside.

        Yields a function that a suspect calls to be alone. It waits until all others have left, and returns False at once if
        another suspect called it first and now waits for the caller to leave.
        """
        is_suspect = False

        def wait_for_exclusive() -> bool:
            nonlocal is_suspect
            with self._changed:
                if self._suspect:
                    return False
                self._suspect = is_suspect = True
                self._changed.wait_for(lambda: self._inside == 1)
                return True

        with self._changed:
            self._changed.wait_for(lambda: not self._suspect)
            self._inside += 1
        try:
            yield wait_for_exclusive
        finally:
            with self._changed:
                self._inside -= 1
                if is_suspect:
                    self._suspect = False
                self._changed.notify_all()
