"""Suspects run alone.

A shard that was claimed before and never came back may be what killed its worker; its neighbours must not pay for it with their
own attempts, and it must not take others along once more.

Invariant: while a suspect runs, nothing else does in this process. So a shard whose claims grow past the first was alone when they
did, and being given up for them is just.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

SUSPECT_CLAIMS = 2  # claimed before, without finishing, failing or being released


class Quarantine:
    """Lets ordinary shards run together and suspects one at a time, alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._suspect_inside = False

    @contextmanager
    def enter(self, *, claims: int) -> Iterator[bool]:
        """Whether the shard may run now. A suspect waits for those that run; whoever comes meanwhile is turned away (False)."""
        suspect = claims >= SUSPECT_CLAIMS
        with self._changed:
            admitted = not self._suspect_inside
            if admitted and suspect:
                self._suspect_inside = True
                self._changed.wait_for(lambda: self._running == 0)
            self._running += admitted
        try:
            yield admitted
        finally:
            if admitted:
                with self._changed:
                    self._running -= 1
                    if suspect:
                        self._suspect_inside = False
                    self._changed.notify_all()
