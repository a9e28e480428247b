"""Suspects run alone.

A shard that was claimed before and never came back may be what killed its worker; its neighbours must not pay for it with their
own attempts, and it must not take others along once more.

Invariants: a suspect runs only while no other shard of this process is between its claim and its end, so a death then counts for
the suspect alone; whoever is turned away gives its claim back before it leaves, so before the suspect runs. Whoever waits to go in
behind one that took the engine along claims nothing any more (`Moderator.dying`).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SUSPECT_CLAIMS = 2  # claimed before, without finishing, failing or being released


class Isolation:
    """Lets ordinary shards run together and suspects one at a time, alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._suspect = False  # one of those inside is a suspect, running or waiting to be alone

    @contextmanager
    def enter(self) -> Iterator[Callable[[], bool]]:
        """Go in before claiming a shard; waits while a suspect is inside.

        Yields what a suspect calls to be alone: it waits until everyone else has left, and returns False at once where another
        suspect came first, who is now waiting for the caller to leave.
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
