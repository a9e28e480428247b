"""What waits for the device: packed into batches, urgent rows in front, then older requests before younger ones.

A row that needs a further pass comes back as another row. Such rows are few and short: they wait in a pool until they fill a batch,
the device would idle, or the oldest has waited long enough.

A pass cannot be interrupted. Where urgent rows may come at any time, batches of the others take no longer than such a row may wait
for the device, by the rate that is measured. Elsewhere, after one has come another may: for a while batches are small. Either way
the windows of a long text are spread over several, and rows that are longer than these are on all streams but one at most.
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
SHRINK, GROW, GROW_AFTER = 0.75, 1.1, 64  # of the token budget after memory ran out; batches without it before it is raised
ALERT_S, ALERT_SHARE = 30.0, 1 / 4  # since the last urgent row came: how much of the budget a batch of the others takes
LEAST_TOKENS = 256  # of a batch that is short: a slow device would lose more than a tenth of its rate with fewer
SMOOTHING = 0.2  # of the rate that is measured: what a batch counts
REPACK = 1.25  # times longer or shorter than planned: plan anew
LEAST = 1 / 16  # of the budget: one enormous row must not make all batches small for long


class Waiting:
    """Belongs to the engine thread. `patience_s`: how long an urgent row may wait for the device; None: as long as it takes."""

    def __init__(self, backend: Backend, clock: Callable[[], float] = time.perf_counter, patience_s: float | None = None) -> None:
        self._backend, self._clock, self._patience_s = backend, clock, patience_s
        self._rate = 0.0  # tokens a second of a batch on the device; 0 before the first
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
        """Pack what waits anew with what came."""
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
        """Batches to be given again as they are: halves of one that failed, or one that had not begun."""
        self._again.extendleft(reversed(batches))

    def pool(self, row: Row) -> None:
        """A row that needs a further pass."""
        self._pool.append(row)

    def next(self, flying: Sequence[Sequence[Row]]) -> list[Row] | None:
        """The next batch, if there is one, beside those on the device. The pool waits for what these may bring to it."""
        holds_back = self._holds_back(flying)
        again = self._first(self._again, holds_back=holds_back)
        if again is not None and (is_urgent(self._again[again]) or not self.has_urgent()):
            return _taken(self._again, again)
        place = self._first(self._plan, holds_back=holds_back)
        if not self._plan and (flying or not self._pool):
            return None
        if self._pool and self._pool_is_due():
            return self._from_pool()
        if place is None:
            return None
        self._pool_age += 1
        return _taken(self._plan, place)

    def is_long(self, batch: Sequence[Row]) -> bool:
        """Whether a batch is one that an urgent row should not have to wait for."""
        return not is_urgent(batch) and sum(row[2].n_tokens for row in batch) > self._short

    @property
    def _short(self) -> int:
        """Tokens of a batch that nobody waits for."""
        if self._patience_s is None:
            return int(ALERT_SHARE * self._budget) if self._clock() < self._alert_until else self._budget
        if not self._rate:
            return min(self._budget, LEAST_TOKENS)
        ahead = 1 + (self._backend.ahead if self._backend.streams == 1 else 0)  # what waits for a stream is taken back
        return min(self._budget, max(LEAST_TOKENS, int(self._rate * self._patience_s / ahead)))

    def _holds_back(self, flying: Sequence[Sequence[Row]]) -> bool:
        """Whether a stream would be left to no one but long rows."""
        is_alert = self._clock() < self._alert_until
        return is_alert and 1 < self._backend.streams <= 1 + sum(self.is_long(batch) for batch in flying)

    def _first(self, batches: Sequence[list[Row]], *, holds_back: bool) -> int | None:
        """The place of the first batch that may go."""
        return next((i for i, batch in enumerate(batches) if not (holds_back and self.is_long(batch))), None)

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

    def went_well(self, tokens: int, seconds: float) -> None:
        """A batch did. Once the budget has sufficed for long: try larger ones again."""
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


def _taken(batches: deque[list[Row]], place: int) -> list[Row]:
    batch = batches[place]
    del batches[place]
    return batch


def is_urgent(rows: Sequence[Row]) -> bool:
    """Whether somebody waits for any of them."""
    return any(request.urgent for request, _, _ in rows)
