"""One thread owns the model; rows of all requests in flight share its batches, urgent ones first.

Invariants: a row is settled exactly once; a request's future resolves when its last row is settled, or fails once with all its
rows dropped; the thread that dies fails every future and then ends the process through `on_fatal`, so no caller waits for ever.

A device that works on its own gets its next batch before the answers to the last one are read, so that it never waits for Python.
On a CPU batches run beside each other (`streams`) and are settled as they end, all by this one thread. A row that needs a further
pass comes back as another row. Such rows are few and short: they wait in a pool until they fill a batch, the device would idle,
or the oldest has waited long enough.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass

from guardfleet.errors import DrainingError, FatalError
from guardfleet.verdict import Model
from worker.engine.contract import (
    Answer,
    Backend,
    BatchReport,
    DeviceFullError,
    DeviceLostError,
    Judged,
    Launched,
    Pieces,
    Prepared,
    Unjudgeable,
)
from worker.engine.requests import Request, Row, requests_of
from worker.packing import halve, pack
from worker.prompt import Content
from worker.windows import Coverage

WINDOW_BATCHES = 4  # tokens that are sorted by length together, in batches: enough to keep padding small
POOL_PATIENCE = 8  # batches that a row waits for others that need a further pass too
SHRINK, GROW, GROW_AFTER = 0.75, 1.1, 64  # of the token budget after memory ran out; batches without it before it is raised
LEAST = 1 / 16  # of the budget: one enormous row must not make all batches small for long


@dataclass(frozen=True, slots=True)
class _Flight:
    """A batch on the device."""

    batch: list[Row]
    launched: Launched
    began: float  # perf_counter


class BatchingEngine:
    """Drives a backend. `on_batch(report)` is called after each batch, `on_fatal(reason)` before giving up."""

    def __init__(
        self,
        backend: Backend,
        *,
        on_batch: Callable[[BatchReport], None] = lambda report: None,
        on_fatal: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._backend = backend
        self._on_batch, self._on_fatal = on_batch, on_fatal
        self._changed = threading.Condition()
        self._arrived: deque[list[Row]] = deque()  # bounded by the callers: one request per task thread
        self._unsettled: dict[int, Request] = {}  # whoever waits, wherever the rows are; guarded by _changed
        self._draining = False
        self._dead = False
        self._thread: threading.Thread | None = None
        self._plan: deque[list[Row]] = deque()  # engine thread only, as are the next
        self._flying: list[_Flight] = []
        self._launching_since: float | None = None
        self._landed_at = 0.0
        self._pool: list[Row] = []
        self._pool_age = 0
        self._budget, self._good_batches = backend.budget_tokens, 0

    @property
    def model(self) -> Model:
        """What judges."""
        return self._backend.model

    def submit(self, contents: Sequence[Content], *, urgent: bool = False, coverage: Coverage | None = None) -> "Future[Judged]":
        """Tokenise in the caller's thread, then queue the rows."""
        started = time.perf_counter()
        prepared = self._backend.prepare(contents, coverage)
        request = Request(prepared, urgent=urgent)
        request.timings.tokenise_s = time.perf_counter() - started
        rows: list[Row] = []
        flat = itertools.chain.from_iterable(row.rows if isinstance(row, Pieces) else [row] for row in prepared)
        for index, row in enumerate(flat):
            if isinstance(row, Unjudgeable):
                request.settle(index, Answer("", failure=row))
            else:
                rows.append((request, index, row))
        request.resolve()
        if rows:
            with self._changed:
                if self._dead:
                    raise FatalError("the engine thread has died.")
                if self._draining:
                    raise DrainingError("the engine is shutting down.")
                self._arrived.append(rows)
                self._unsettled[id(request)] = request
                self._changed.notify()
        return request.future

    def start(self) -> None:
        """Start the engine thread."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._live, name="engine", daemon=True)
                self._thread.start()

    def drain(self) -> None:
        """Take no more; hand back what is not on the device."""
        with self._changed:
            self._draining = True
            self._changed.notify()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Drain and wait for the thread."""
        self.drain()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def busy_s(self) -> float:
        """Age of the oldest batch on the device."""
        oldest = self._flying[:1]
        since = oldest[0].began if oldest else self._launching_since
        return 0.0 if since is None else time.perf_counter() - since

    def _live(self) -> None:
        try:
            while (batch := self._choose(patient=not self._flying)) is not None or self._flying:
                if batch is not None:
                    self._launch(batch)
                if self._flying and (batch is None or len(self._flying) > self._backend.ahead):
                    self._land()
        except BaseException as error:  # noqa: BLE001 - the last frame of the thread: nothing above could act on it
            self._fail_all(FatalError(f"the engine thread died: {type(error).__name__}"), dead=True)
            self._on_fatal(f"engine thread died: {type(error).__name__}: {error}")
        else:
            self._fail_all(DrainingError("the engine is shutting down."), dead=False)

    def _choose(self, *, patient: bool) -> list[Row] | None:
        """The next batch; waits for work if `patient`. None once draining, or where there is nothing to do meanwhile."""
        with self._changed:
            while patient and not (self._draining or self._arrived or self._plan or self._pool):
                self._changed.wait()
            if self._draining:
                return None
            arrived = list(itertools.chain.from_iterable(self._arrived))
            self._arrived.clear()
        if arrived:
            self._replan(arrived)
        if not (patient or self._plan):
            return None  # what is on the device may bring more for the pool
        if self._pool and self._pool_is_due():
            return self._from_pool()
        self._pool_age += 1
        return self._plan.popleft()

    def _pool_is_due(self) -> bool:
        if not self._plan or any(row[0].urgent for row in self._pool):
            return True
        if self._plan[0][0][0].urgent:
            return False
        return self._pool_age >= POOL_PATIENCE or sum(row[2].n_tokens for row in self._pool) >= self._budget

    def _from_pool(self) -> list[Row]:
        """As many of the oldest as a batch takes."""
        total = itertools.accumulate(row[2].n_tokens for row in self._pool)
        n = min(self._backend.max_rows, max(1, sum(tokens <= self._budget for tokens in total)))
        batch, self._pool = self._pool[:n], self._pool[n:]
        self._pool_age = 0
        return batch

    def _replan(self, arrived: list[Row]) -> None:
        """Pack what waits anew with what came: urgent rows in front, then older requests before younger ones."""
        backend = self._backend
        rows = sorted([*itertools.chain.from_iterable(self._plan), *arrived], key=lambda row: row[0].queued_at)
        self._plan.clear()
        for urgent in (True, False):
            for window in self._windows([row for row in rows if row[0].urgent is urgent]):
                lengths = [row[2].n_tokens for row in window]
                limits = {"budget_tokens": self._budget, "max_rows": backend.max_rows}
                batches = pack(lengths, **limits, padded=backend.padded, streams=backend.streams)
                self._plan.extend([window[i] for i in batch] for batch in batches)

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

    def _launch(self, batch: list[Row]) -> None:
        """Give the batch to the device."""
        self._launching_since = began = time.perf_counter()
        for request in requests_of(batch):
            if not request.timings.batches:
                request.timings.wait_s = began - request.queued_at
        with self._isolating(batch):
            self._flying.append(_Flight(batch, self._backend.launch([row for _, _, row in batch]), began))
        self._launching_since = None

    def _land(self) -> None:
        """Wait for the oldest batch that is done, and settle its rows."""
        done = wait({flight.launched.done for flight in self._flying}, return_when=FIRST_COMPLETED).done
        flight = next(flight for flight in self._flying if flight.launched.done in done)
        self._flying.remove(flight)
        answers = None
        with self._isolating(flight.batch):
            answers = flight.launched.collect()
        now = time.perf_counter()
        seconds, self._landed_at = now - max(flight.began, self._landed_at), now
        if answers is not None:
            self._report(flight.batch, answers, seconds)
            self._settle(flight.batch, answers)

    @contextmanager
    def _isolating(self, batch: list[Row]) -> Iterator[None]:
        """Whatever a row provokes must not take its neighbours along: a batch that fails is given again in halves."""
        try:
            yield
        except DeviceLostError:
            raise
        except DeviceFullError:
            if len(batch) > 1:
                self._shrink()
            self._isolate(batch, "it exhausts the device's memory on its own")
        except Exception as error:  # noqa: BLE001 - see above
            self._isolate(batch, f"it raises {type(error).__name__}")

    def _isolate(self, batch: list[Row], reason: str) -> None:
        """Halve a failed batch; a row that fails alone is settled as a failure."""
        if len(batch) == 1:
            self._settle(batch, [Answer("", failure=Unjudgeable("engine_failed", reason))])
            return
        parts = halve(range(len(batch)), [row.n_tokens for _, _, row in batch])
        self._plan.extendleft([batch[i] for i in part] for part in reversed(parts))

    def _report(self, batch: list[Row], answers: Sequence[Answer | Prepared], seconds: float) -> None:
        for request in requests_of(batch):
            request.timings.device_s += seconds
            request.timings.batches += 1
        self._grow()
        done = [answer for answer in answers if isinstance(answer, Answer)]
        close = sum(answer.is_close for answer in done)
        self._on_batch(BatchReport(len(batch), sum(row.n_tokens for _, _, row in batch), seconds, len(done), close))

    def _shrink(self) -> None:
        """Memory ran out: smaller batches from now on, also of what is planned already."""
        self._budget, self._good_batches = int(max(LEAST * self._backend.budget_tokens, SHRINK * self._budget)), 0
        self._replan([])

    def _grow(self) -> None:
        """It has sufficed for long: try larger ones again."""
        self._good_batches += 1
        if self._good_batches >= GROW_AFTER and self._budget < self._backend.budget_tokens:
            self._budget, self._good_batches = min(self._backend.budget_tokens, int(GROW * self._budget) + 1), 0

    def _settle(self, batch: list[Row], answers: Sequence[Answer | Prepared]) -> None:
        for (request, index, _), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Answer):
                request.settle(index, answer)
            else:
                self._pool.append((request, index, answer))
        for request in requests_of(batch):
            request.resolve()
            if request.future.done():
                with self._changed:
                    del self._unsettled[id(request)]

    def _fail_all(self, error: Exception, *, dead: bool) -> None:
        with self._changed:
            self._draining, self._dead = True, dead
            waiting = list(self._unsettled.values())
            self._unsettled.clear()
            self._arrived.clear()
        self._plan.clear()
        self._flying.clear()
        self._pool.clear()
        for request in waiting:
            if not request.future.done():
                request.future.set_exception(error)
