"""The engine: one thread owns the model; rows of all pending requests share its batches, urgent ones first.

Invariants: a row is answered exactly once; a request's future resolves when its last row is answered, or fails once with all its
rows dropped; a dying thread fails every future and then ends the process through `on_fatal`, so that no caller waits for ever.

A device gets its next batch before the answers of the last one are read, so that it never waits for Python. On a CPU, batches run
in parallel (`streams`) and are recorded as they end, all by this one thread. An urgent row waits for the first batch to end;
batches that have not begun are taken back for it, and none is launched behind it that would delay its further passes.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass

from guardfleet.domain.verdict import Model
from guardfleet.errors import DrainingError, FatalError
from worker.engine.interfaces import (
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
from worker.engine.packing import halve
from worker.engine.prompting.prompt import Content
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.prompting.windows import Coverage
from worker.engine.requests import Request, Row, requests_of
from worker.engine.scheduler import Waiting, is_urgent


@dataclass(eq=False, slots=True)
class _Flight:
    """A batch on the device, or next in line."""

    batch: list[Row]
    launched: Launched
    began: float  # perf_counter; for a batch that waits for a stream: until now


class BatchingEngine:
    """Drives a backend. Calls `on_batch(report)` after each batch, and `on_fatal(reason)` before its thread ends.

    `patience_s`: as in `scheduler.Waiting`; set it where a text may come that somebody waits for.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        on_batch: Callable[[BatchReport], None] = lambda report: None,
        on_fatal: Callable[[str], None] = lambda reason: None,
        patience_s: float | None = None,
    ) -> None:
        self._backend = backend
        self._on_batch, self._on_fatal = on_batch, on_fatal
        self._changed = threading.Condition()
        self._arrived: deque[list[Row]] = deque()  # bounded by the callers: one request per task thread
        self._pending: dict[int, Request] = {}  # requests that wait, wherever their rows are; guarded by _changed
        self._bell: Future[None] = Future()  # set to make the engine thread look up from the device; guarded by _changed
        self._has_idle_stream = False  # while the engine thread waits for the device; guarded by _changed
        self._draining = False
        self._dead = False
        self._thread: threading.Thread | None = None
        self._waiting = Waiting(backend, patience_s=patience_s)  # used by the engine thread only, as are the next
        self._flying: list[_Flight] = []
        self._launching_since: float | None = None
        self._landed_at = 0.0

    @property
    def model(self) -> Model:
        """The model that judges."""
        return self._backend.model

    @property
    def is_padded(self) -> bool:
        """Whether rows are padded to the longest of their batch."""
        return self._backend.padded

    def submit(
        self,
        contents: Sequence[Content],
        *,
        urgent: bool = False,
        coverage: Coverage | None = None,
        policy: PromptPolicy | None = None,
    ) -> "Future[Judged]":
        """Tokenise in the caller's thread, then queue the rows."""
        started = time.perf_counter()
        prepared = self._backend.prepare(contents, coverage, policy)
        request = Request(prepared, urgent=urgent)
        request.timings.tokenise_s = time.perf_counter() - started
        rows: list[Row] = []
        flat = itertools.chain.from_iterable(row.rows if isinstance(row, Pieces) else [row] for row in prepared)
        for index, row in enumerate(flat):
            if isinstance(row, Unjudgeable):
                request.record(index, Answer("", failure=row))
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
                self._pending[id(request)] = request
                if urgent or self._has_idle_stream:
                    self._ring()
                self._changed.notify()
        return request.future

    def start(self) -> None:
        """Start the engine thread."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._live, name="engine", daemon=True)
                self._thread.start()

    def drain(self) -> None:
        """Accept no more; hand back what has not begun on the device."""
        with self._changed:
            self._draining = True
            self._ring()
            self._changed.notify()

    def stop(self, timeout_s: float = 30.0) -> None:
        """Drain and wait for the thread."""
        self.drain()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def busy_s(self) -> float:
        """Return the age of the oldest batch on the device."""
        oldest = self._flying[:1]
        since = oldest[0].began if oldest else self._launching_since
        return 0.0 if since is None else time.perf_counter() - since

    def memory_bytes(self) -> tuple[int, int]:
        """Return how much of the device's memory is in use, and how much it has; zeros where it has none of its own."""
        return self._backend.memory_bytes(), self._backend.memory_total_bytes()

    @property
    def device(self) -> str:
        """The device, as torch names it."""
        return self._backend.device

    def _ring(self) -> None:
        if not self._bell.done():
            self._bell.set_result(None)

    def _live(self) -> None:
        try:
            while self._take() or self._flying:
                while self._has_room() and (batch := self._waiting.next([f.batch for f in self._flying])) is not None:
                    self._launch(batch)
                if self._flying:
                    self._land()
        except BaseException as error:  # noqa: BLE001 - the last frame of the thread: nothing above could act on it
            self._fail_all(FatalError(f"the engine thread died: {type(error).__name__}"), dead=True)
            self._on_fatal(f"engine thread died: {type(error).__name__}: {error}")
        else:
            self._fail_all(DrainingError("the engine is shutting down."), dead=False)

    def _take(self) -> bool:
        """Plan what has arrived; wait if there is nothing else to do. Return False once draining."""
        with self._changed:
            while not (self._draining or self._arrived or self._flying or self._waiting):
                self._changed.wait()
            arrived = list(itertools.chain.from_iterable(self._arrived))
            self._arrived.clear()
            if self._bell.done():
                self._bell = Future()
            draining = self._draining
        if draining or is_urgent(arrived):
            self._recall()
        if draining:
            self._waiting.clear()
            return False
        if arrived:
            self._waiting.add(arrived)
        return True

    def _has_room(self) -> bool:
        """Return whether to launch another batch. Only urgent ones queue behind urgent ones, which may soon need a further pass."""
        if len(self._flying) < self._backend.streams:
            return True
        behind_urgent = any(is_urgent(flight.batch) for flight in self._flying)
        return len(self._flying) <= self._backend.ahead and (not behind_urgent or self._waiting.has_urgent())

    def _recall(self) -> None:
        """Take back batches that wait for a stream, unless urgent: what arrived goes first."""
        waiting = self._flying[self._backend.streams :]
        back = [flight for flight in waiting if not is_urgent(flight.batch) and flight.launched.recall()]
        self._flying = [flight for flight in self._flying if flight not in back]
        self._waiting.give_back([flight.batch for flight in back])

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
        """Wait for a batch and record its answers; also return when new work arrives first."""
        with self._changed:
            self._has_idle_stream = len(self._flying) < self._backend.streams
            if self._has_idle_stream and self._arrived:
                return
        done = wait({self._bell, *(flight.launched.done for flight in self._flying)}, return_when=FIRST_COMPLETED).done
        flight = next((flight for flight in self._flying if flight.launched.done in done), None)
        if flight is None:
            return
        self._flying.remove(flight)
        answers = None
        with self._isolating(flight.batch):
            answers = flight.launched.collect()
        now = time.perf_counter()
        seconds, self._landed_at = now - max(flight.began, self._landed_at), now
        for begins in self._flying[self._backend.streams - 1 : self._backend.streams]:  # waited for the stream that is free now
            begins.began = now
        if answers is not None:
            self._report(flight.batch, answers, seconds)
            self._record(flight.batch, answers)

    @contextmanager
    def _isolating(self, batch: list[Row]) -> Iterator[None]:
        """Keep a bad row from failing its neighbours: a batch that fails is run again in halves."""
        try:
            yield
        except DeviceLostError:
            raise
        except DeviceFullError:
            if len(batch) > 1:
                self._waiting.shrink()
            self._isolate(batch, "it exhausts the device's memory on its own")
        except Exception as error:  # noqa: BLE001 - see above
            self._isolate(batch, f"it raises {type(error).__name__}")

    def _isolate(self, batch: list[Row], reason: str) -> None:
        """Halve a failed batch; a row that fails alone is recorded as a failure."""
        if len(batch) == 1:
            self._record(batch, [Answer("", failure=Unjudgeable("engine_failed", reason))])
            return
        parts = halve(range(len(batch)), [row.n_tokens for _, _, row in batch])
        self._waiting.give_back([[batch[i] for i in part] for part in parts])

    def _report(self, batch: list[Row], answers: Sequence[Answer | Prepared], seconds: float) -> None:
        for request in requests_of(batch):
            request.timings.device_s += seconds
            request.timings.batches += 1
        tokens = sum(row.n_tokens for _, _, row in batch)
        token_s = seconds / max(1, tokens) / self._backend.streams  # batches that run in parallel share the device
        for request, _, row in batch:
            request.timings.share_s += token_s * row.n_tokens
        self._waiting.went_well(tokens, seconds)
        done = [answer for answer in answers if isinstance(answer, Answer)]
        close = sum(answer.is_close for answer in done)
        self._on_batch(BatchReport(len(batch), tokens, seconds, len(done), close))

    def _record(self, batch: list[Row], answers: Sequence[Answer | Prepared]) -> None:
        for (request, index, _), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Answer):
                request.record(index, answer)
            else:
                self._waiting.pool((request, index, answer))
        for request in requests_of(batch):
            request.resolve()
            if request.future.done():
                with self._changed:
                    del self._pending[id(request)]

    def _fail_all(self, error: Exception, *, dead: bool) -> None:
        with self._changed:
            self._draining, self._dead = True, dead
            waiting = list(self._pending.values())
            self._pending.clear()
            self._arrived.clear()
        self._waiting.clear()
        self._flying.clear()
        for request in waiting:
            if not request.future.done():
                request.future.set_exception(error)
