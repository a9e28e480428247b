"""What waits for the device: packed into batches, urgent rows first, then older requests before younger ones.

A row that needs a further pass comes back as another row. Such rows are few and short: they wait in a pool until they fill a batch,
the device would idle, or the oldest has waited long enough.

A pass cannot be interrupted. If urgent rows may come at any time, other batches are made so small that such a row waits only
`patience_s` for the device, by the measured rate. Otherwise batches are small for a while after an urgent row, since another may
follow. In both cases the windows of a long text are spread over several batches, and longer rows leave at least one stream free.
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from worker.engine.interfaces import Backend
from worker.engine.packing import pack
from worker.engine.requests import Row

WINDOW_BATCHES = 4  # tokens that are sorted by length together, in batches: enough to keep padding small
POOL_PATIENCE = 8  # batches that a row waits for others that need a further pass too
SHRINK = 0.75  # the token budget is multiplied by this when memory runs out
GROW, GROW_AFTER = 1.1, 64  # and by this after so many batches in which it did not
ALERT_S, ALERT_SHARE = 30.0, 1 / 4  # since the last urgent row: the share of the budget that other batches take
LEAST_TOKENS = 256  # of a short batch: with fewer, a slow device would lose more than a tenth of its rate
SMOOTHING = 0.2  # weight of one batch in the measured rate
REPACK = 1.25  # plan again if this much longer or shorter than planned
LEAST = 1 / 16  # of the budget: one enormous row must not make all batches small for long


class Waiting:
    """The waiting rows; belongs to the engine thread. `patience_s`: how long an urgent row may wait; None: no limit."""

    def __init__(self, backend: Backend, clock: Callable[[], float] = time.perf_counter, patience_s: float | None = None) -> None:
        self._backend, self._clock, self._patience_s = backend, clock, patience_s
        self._rate = 0.0  # tokens per second of a batch on the device; 0 before the first
        self._planned_short = 0
        self._alert_until = float("-inf")
        self._plan: deque[list[Row]] = deque()
        self._again: deque[list[Row]] = deque()
        self._pool: list[Row] = []
        self._pool_age = 0
        self._budget, self._good_batches = backend.budget_tokens, 0

    def __bool__(self) -> bool:
        return bool(self._plan or self._again or self._pool)

    def add(self, arrived: Sequence[Row]) -> None:
        """Pack the waiting rows again, together with the new ones."""
        rows = sorted([*itertools.chain.from_iterable(self._plan), *arrived], key=lambda row: row[0].queued_at)
        self._plan.clear()
        self._planned_short = self._short
        if is_urgent(arrived):
            self._alert_until = self._clock() + ALERT_S
        backend = self._backend
        for urgent in (True, False):
            for window in self._windows([row for row in rows if row[0].urgent is urgent]):
                lengths = [row[2].n_tokens for row in window]
                limits = {"budget_tokens": self._budget if urgent else self._short, "max_rows": backend.max_rows}
                batches = pack(lengths, **limits, padded=backend.padded, streams=backend.streams)
                self._plan.extend([window[i] for i in batch] for batch in batches)

    def give_back(self, batches: Sequence[list[Row]]) -> None:
        """Take back batches to run as they are: halves of a failed one, or one that had not begun."""
        self._again.extendleft(reversed(batches))

    def pool(self, row: Row) -> None:
        """Keep a row that needs a further pass."""
        self._pool.append(row)

    def next(self, flying: Sequence[Sequence[Row]]) -> list[Row] | None:
        """Return the next batch, if any, beside those on the device. The pool waits for rows that these may add to it."""
        holds_back = self._holds_back(flying)
        again = self._first(self._again, holds_back=holds_back)
        if again is not None and (is_urgent(self._again[again]) or not self.has_urgent()):
            return _taken(self._again, again)
        index = self._first(self._plan, holds_back=holds_back)
        if not self._plan and (flying or not self._pool):
            return None
        if self._pool and self._pool_is_due():
            return self._from_pool()
        if index is None:
            return None
        self._pool_age += 1
        return _taken(self._plan, index)

    def is_long(self, batch: Sequence[Row]) -> bool:
        """Return whether an urgent row should not have to wait for this batch."""
        return not is_urgent(batch) and sum(row[2].n_tokens for row in batch) > self._short

    @property
    def _short(self) -> int:
        """Tokens of a batch that nobody waits for."""
        if self._patience_s is None:
            return int(ALERT_SHARE * self._budget) if self._clock() < self._alert_until else self._budget
        if not self._rate:
            return min(self._budget, LEAST_TOKENS)
        ahead = 1 + (self._backend.ahead if self._backend.streams == 1 else 0)  # batches that wait for a stream are taken back
        return min(self._budget, max(LEAST_TOKENS, int(self._rate * self._patience_s / ahead)))

    def _holds_back(self, flying: Sequence[Sequence[Row]]) -> bool:
        """Return whether launching more would leave streams to long rows only."""
        is_alert = self._clock() < self._alert_until
        return is_alert and 1 < self._backend.streams <= 1 + sum(self.is_long(batch) for batch in flying)

    def _first(self, batches: Sequence[list[Row]], *, holds_back: bool) -> int | None:
        """Return the index of the first batch that may run."""
        return next((i for i, batch in enumerate(batches) if not (holds_back and self.is_long(batch))), None)

    def has_urgent(self) -> bool:
        """Return whether somebody waits for the next batch."""
        return bool(self._plan and is_urgent(self._plan[0])) or is_urgent(self._pool)

    def clear(self) -> None:
        """Drop everything."""
        self._plan.clear()
        self._again.clear()
        self._pool.clear()

    def shrink(self) -> None:
        """Make batches smaller after memory ran out, including those already planned."""
        self._budget, self._good_batches = int(max(LEAST * self._backend.budget_tokens, SHRINK * self._budget)), 0
        self.add([])

    def went_well(self, tokens: int, seconds: float) -> None:
        """Record a successful batch. After enough of them, try larger batches again."""
        if seconds > 0:
            rate = tokens / seconds
            self._rate += (rate - self._rate) * (SMOOTHING if self._rate else 1)
            if self._plan and not 1 / REPACK <= self._short / max(1, self._planned_short) <= REPACK:
                self.add([])
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
        """Return as many of the oldest rows as a batch takes."""
        total = itertools.accumulate(row[2].n_tokens for row in self._pool)
        n = min(self._backend.max_rows, max(1, sum(tokens <= self._budget for tokens in total)))
        batch, self._pool = self._pool[:n], self._pool[n:]
        self._pool_age = 0
        return batch

    def _windows(self, rows: list[Row]) -> Iterator[list[Row]]:
        """Yield whole requests in order, together until they fill a few batches.

        Sorting all waiting rows by length would finish all shards at the same moment: progress would jump, and the device would
        wait while every one of them is written. Small requests still share batches.
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


def _taken(batches: deque[list[Row]], index: int) -> list[Row]:
    batch = batches[index]
    del batches[index]
    return batch


def is_urgent(rows: Sequence[Row]) -> bool:
    """Return whether somebody waits for any of the rows."""
    return any(request.urgent for request, _, _ in rows)
