"""What waits for the device: packed into batches, urgent rows in front, then older requests before younger ones.

A row that needs a further pass comes back as another row. Such rows are few and short: they wait in a pool until they fill a batch,
the device would idle, or the oldest has waited long enough.
"""

import itertools
from collections import deque
from collections.abc import Iterator, Sequence

from worker.engine.contract import Backend
from worker.engine.requests import Row
from worker.packing import pack

WINDOW_BATCHES = 4  # tokens that are sorted by length together, in batches: enough to keep padding small
POOL_PATIENCE = 8  # batches that a row waits for others that need a further pass too
SHRINK, GROW, GROW_AFTER = 0.75, 1.1, 64  # of the token budget after memory ran out; batches without it before it is raised
LEAST = 1 / 16  # of the budget: one enormous row must not make all batches small for long


class Waiting:
    """Belongs to the engine thread."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._plan: deque[list[Row]] = deque()
        self._again: deque[list[Row]] = deque()
        self._pool: list[Row] = []
        self._pool_age = 0
        self._budget, self._good_batches = backend.budget_tokens, 0

    def __bool__(self) -> bool:
        return bool(self._plan or self._again or self._pool)

    def add(self, arrived: Sequence[Row]) -> None:
        """Pack what waits anew with what came."""
        rows = sorted([*itertools.chain.from_iterable(self._plan), *arrived], key=lambda row: row[0].queued_at)
        self._plan.clear()
        backend = self._backend
        for urgent in (True, False):
            for window in self._windows([row for row in rows if row[0].urgent is urgent]):
                lengths = [row[2].n_tokens for row in window]
                limits = {"budget_tokens": self._budget, "max_rows": backend.max_rows}
                batches = pack(lengths, **limits, padded=backend.padded, streams=backend.streams)
                self._plan.extend([window[i] for i in batch] for batch in batches)

    def give_back(self, batches: Sequence[list[Row]]) -> None:
        """Batches to be given again as they are: halves of one that failed, or one that had not begun."""
        self._again.extendleft(reversed(batches))

    def pool(self, row: Row) -> None:
        """A row that needs a further pass."""
        self._pool.append(row)

    def next(self, *, idle: bool) -> list[Row] | None:
        """The next batch, if there is one. The pool waits while the device is not `idle`: what is on it may bring more."""
        if self._again and (is_urgent(self._again[0]) or not self.has_urgent()):
            return self._again.popleft()
        if not self._plan and not (idle and self._pool):
            return None
        if self._pool and self._pool_is_due():
            return self._from_pool()
        self._pool_age += 1
        return self._plan.popleft()

    def has_urgent(self) -> bool:
        """Whether the next batch is one that somebody waits for."""
        return bool(self._plan and is_urgent(self._plan[0])) or is_urgent(self._pool)

    def clear(self) -> None:
        """Forget it all."""
        self._plan.clear()
        self._again.clear()
        self._pool.clear()

    def shrink(self) -> None:
        """Memory ran out: smaller batches from now on, also of what is planned already."""
        self._budget, self._good_batches = int(max(LEAST * self._backend.budget_tokens, SHRINK * self._budget)), 0
        self.add([])

    def grow(self) -> None:
        """A batch went well. Once it has sufficed for long: try larger ones again."""
        self._good_batches += 1
        if self._good_batches >= GROW_AFTER and self._budget < self._backend.budget_tokens:
            self._budget, self._good_batches = min(self._backend.budget_tokens, int(GROW * self._budget) + 1), 0

    def _pool_is_due(self) -> bool:
        if not self._plan or is_urgent(self._pool):
            return True
        if is_urgent(self._plan[0]):
            return False
        return self._pool_age >= POOL_PATIENCE or sum(row[2].n_tokens for row in self._pool) >= self._budget

    def _from_pool(self) -> list[Row]:
        """As many of the oldest as a batch takes."""
        total = itertools.accumulate(row[2].n_tokens for row in self._pool)
        n = min(self._backend.max_rows, max(1, sum(tokens <= self._budget for tokens in total)))
        batch, self._pool = self._pool[:n], self._pool[n:]
        self._pool_age = 0
        return batch

    def _windows(self, rows: list[Row]) -> Iterator[list[Row]]:
        """Whole requests in order, together until they fill a few batches.

        Sorting all that waits by length would finish all shards at the same moment: progress in jumps, and a device that waits
        while every one of them is written. Small requests still share batches.
        """
        window: list[Row] = []
        tokens = 0
        for _, request in itertools.groupby(rows, key=lambda row: id(row[0])):
            begun = len(window)
            window += request
            tokens += sum(row[2].n_tokens for row in window[begun:])
            if tokens >= WINDOW_BATCHES * self._budget:
                yield window
                window, tokens = [], 0
        yield window


def is_urgent(rows: Sequence[Row]) -> bool:
    """Whether somebody waits for any of them."""
    return any(request.urgent for request, _, _ in rows)
