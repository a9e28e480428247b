"""One thread serves all callers: every row is settled once, whatever happens to its batch."""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future

import pytest

from guardfleet.domain.verdict import Model
from guardfleet.errors import DrainingError, FatalError
from tests.services.patience import patience
from worker.engine.engine import BatchingEngine
from worker.engine.interfaces import Answer, Judged, Launched, Prepared, Synchronous, Unjudgeable
from worker.engine.prompting.prompt import Content
from worker.engine.prompting.windows import DEFAULT_POLICY, Policy
from worker.engine.requests import Request
from worker.engine.scheduler import ALERT_S, Waiting
from worker.engine.testing.marked import InstantBackend, Marked

WAIT_S = patience(10)
SHORT = 50  # tokens


class Gate(InstantBackend):
    """An instant backend that waits before each batch and remembers what it ran."""

    def __init__(self) -> None:
        super().__init__(budget_tokens=1000, max_rows=100)
        self.entered, self.open = threading.Semaphore(0), threading.Semaphore(0)
        self.batches: list[int] = []

    def run(self, batch: Sequence[Prepared]) -> list[Answer]:
        self.entered.release()
        assert self.open.acquire(timeout=WAIT_S)
        self.batches.append(len(batch))
        return super().run(batch)


class Beside(InstantBackend):
    """An instant backend with two streams, whose batches begin and end when the test says so."""

    ahead, streams = 2, 2

    def __init__(self, budget_tokens: int = 10_000, policy: Policy = DEFAULT_POLICY) -> None:
        super().__init__(budget_tokens=budget_tokens, policy=policy)
        self.launched: queue.SimpleQueue[tuple[Sequence[Prepared], Future[None]]] = queue.SimpleQueue()
        self.twice = False  # whether short rows need a further pass
        self._begun: list[Prepared] = []

    def launch(self, batch: Sequence[Prepared]) -> Launched:
        done: Future[None] = Future()
        self.launched.put((batch, done))

        def collect() -> Sequence[Answer | Prepared]:
            if self.twice and batch[0].n_tokens < SHORT and batch[0] not in self._begun:
                self._begun += batch
                return batch
            return self.run(batch)

        return Launched(collect, done, done.cancel)


def answers(future: "Future[Judged]") -> list[str]:
    return [answer.failure.code if answer.failure else answer.raw.split("\n")[0] for answer in future.result(WAIT_S).answers]


@pytest.fixture
def engine() -> BatchingEngine:
    made = BatchingEngine(InstantBackend(budget_tokens=2000, max_rows=64))
    made.start()
    return made


def test_answers_come_in_the_order_of_the_texts(engine: BatchingEngine) -> None:
    texts = ["x" * (1 + 37 * i % 500) + (" [[unsafe]]" if i % 3 == 0 else "") for i in range(300)]
    assert answers(engine.submit(texts)) == ["Safety: Unsafe" if i % 3 == 0 else "Safety: Safe" for i in range(300)]
    engine.stop()


def test_rows_of_several_requests_share_a_batch_and_urgent_ones_go_first() -> None:
    backend = Gate()
    engine = BatchingEngine(backend)
    engine.start()
    first = engine.submit(["first"])
    assert backend.entered.acquire(timeout=WAIT_S)  # the device is busy: what comes now is packed together
    bulk = [engine.submit(["a" * 40, "b" * 40]) for _ in range(3)]
    urgent = engine.submit(["now"], urgent=True)
    for _ in range(3):
        backend.open.release()
    assert answers(first) == ["Safety: Safe"]
    assert answers(urgent) == ["Safety: Safe"]
    assert [answers(future) for future in bulk] == [["Safety: Safe"] * 2] * 3
    assert backend.batches == [1, 1, 6]  # the first, the urgent one, and all the bulk together
    engine.stop()


def test_little_work_is_shared_out_over_the_streams_and_settled_as_it_ends() -> None:
    backend = Beside()
    engine = BatchingEngine(backend)
    future = engine.submit(["a" * 2400, "b" * 2400])
    engine.start()
    first, second = (backend.launched.get(timeout=WAIT_S) for _ in range(2))  # both at once
    assert [len(batch) for batch, _ in (first, second)] == [1, 1]
    later = engine.submit(["c"])
    second[1].set_result(None)  # the younger one ends first, and the stream that it leaves gets what came meanwhile
    third = backend.launched.get(timeout=WAIT_S)
    assert engine.busy_s() > 0
    third[1].set_result(None)
    assert answers(later) == ["Safety: Safe"]
    assert not future.done()
    first[1].set_result(None)
    assert answers(future) == ["Safety: Safe", "Safety: Safe"]
    engine.stop()


def test_a_stream_has_its_next_batch_waiting_which_is_taken_back_for_one_that_somebody_waits_for() -> None:
    backend = Beside(budget_tokens=100)  # a batch a text
    backend.twice = True
    engine = BatchingEngine(backend)
    bulk = engine.submit(["a" * 390, "b" * 380, "c" * 370, "d" * 360])
    engine.start()
    running = [backend.launched.get(timeout=WAIT_S) for _ in range(2)]
    _, queued = backend.launched.get(timeout=WAIT_S)
    urgent = engine.submit(["now"], urgent=True)
    (asked,), next_one = backend.launched.get(timeout=WAIT_S)  # while both streams run
    assert queued.cancelled()
    running[0][1].set_result(None)
    next_one.set_result(None)
    (asked_again,), further = backend.launched.get(timeout=WAIT_S)  # nothing else was put behind the first pass
    assert asked_again is asked
    further.set_result(None)
    assert answers(urgent) == ["Safety: Safe"]
    running[1][1].set_result(None)
    for _ in range(2):  # what was taken back, and the last
        backend.launched.get(timeout=WAIT_S)[1].set_result(None)
    assert answers(bulk) == ["Safety: Safe"] * 4
    engine.stop()


def test_the_windows_of_a_long_text_leave_a_stream_to_who_comes_again() -> None:
    backend = Beside(budget_tokens=100, policy=Policy(tokens=90, overlap=5, most=64))
    engine = BatchingEngine(backend)
    long = engine.submit(["x" * 4 * 400])  # five windows, each a batch of its own
    engine.start()
    first, second = (backend.launched.get(timeout=WAIT_S)[1] for _ in range(2))
    queued = backend.launched.get(timeout=WAIT_S)[1]
    urgent = engine.submit(["now"], urgent=True)
    asked = backend.launched.get(timeout=WAIT_S)  # before the windows that are left
    assert [row.n_tokens for row in asked[0]] == [1]
    assert queued.cancelled()
    for done in (first, asked[1]):
        done.set_result(None)
    assert answers(urgent) == ["Safety: Safe"]
    again = engine.submit(["again"], urgent=True)  # one stream has a window, the other is free
    asked = backend.launched.get(timeout=WAIT_S)
    assert [row.n_tokens for row in asked[0]] == [2]
    asked[1].set_result(None)
    assert answers(again) == ["Safety: Safe"]
    short = engine.submit(["y"])  # overtakes windows that are held back
    asked = backend.launched.get(timeout=WAIT_S)
    assert [row.n_tokens for row in asked[0]] == [1]
    asked[1].set_result(None)
    assert answers(short) == ["Safety: Safe"]
    assert backend.launched.empty()
    second.set_result(None)
    for _ in range(3):
        assert backend.launched.empty() or not long.done()
        backend.launched.get(timeout=WAIT_S)[1].set_result(None)
    assert len(long.result(WAIT_S).answers[0].windows) == 5
    engine.stop()


def test_while_somebody_may_come_a_pass_is_small_and_then_large_again() -> None:
    moment = 0.0
    backend = InstantBackend(budget_tokens=1000, max_rows=100)
    waiting = Waiting(backend, clock=lambda: moment)
    rows = [(Request([], urgent=False), i, Marked(60, "", responds=False)) for i in range(32)]
    urgent = (Request([], urgent=True), 0, Marked(10, "", responds=False))

    def tokens() -> list[int]:
        batches = iter(lambda: waiting.next([]), None)
        return [sum(row[2].n_tokens for row in batch) for batch in batches if batch is not None]

    waiting.add(rows)
    assert tokens() == [960, 960]
    waiting.add([*rows, urgent])
    assert tokens() == [10, *[240] * 8]
    waiting.add(rows)
    assert tokens() == [240] * 8
    moment = 2 * ALERT_S
    waiting.add(rows)
    assert tokens() == [960, 960]


@pytest.mark.parametrize(("ahead", "longest"), [(0, 1000), (1, 600)])
def test_where_somebody_may_come_no_pass_takes_longer_than_they_may_wait(ahead: int, longest: int) -> None:
    """At 4,000 tokens a second and 0.3 s: of one batch, or of the two that a GPU has been given."""
    backend = InstantBackend(budget_tokens=1000, max_rows=100)
    backend.ahead = ahead  # type: ignore[misc]
    waiting = Waiting(backend, patience_s=0.3)
    waiting.add([(Request([], urgent=False), i, Marked(20, "", responds=False)) for i in range(200)])
    first = waiting.next([])
    assert first is not None
    assert sum(row[2].n_tokens for row in first) == 240  # nobody knows yet how long it takes
    waiting.went_well(tokens=4000, seconds=1.0)
    rest = [sum(row[2].n_tokens for row in batch) for batch in iter(lambda: waiting.next([]), None)]
    assert sum(rest) == 4000 - 240
    assert max(rest) == longest


def test_draining_hands_back_what_waits_for_a_stream() -> None:
    backend = Beside(budget_tokens=100)
    engine = BatchingEngine(backend)
    futures = [engine.submit([letter * 380]) for letter in "abc"]
    engine.start()
    running = [backend.launched.get(timeout=WAIT_S)[1] for _ in range(2)]
    _, queued = backend.launched.get(timeout=WAIT_S)
    engine.drain()
    with pytest.raises(CancelledError):
        queued.result(WAIT_S)
    for done in running:
        done.set_result(None)
    assert [answers(future) for future in futures[:2]] == [["Safety: Safe"]] * 2
    with pytest.raises(DrainingError):
        futures[2].result(WAIT_S)
    engine.stop()


def test_a_bad_row_is_alone_in_its_failure(engine: BatchingEngine) -> None:
    texts = ["fine"] * 20 + ["[[raise]]"] + ["fine"] * 20 + ["[[alone-oom]]", "[[oom]]"]
    found = answers(engine.submit(texts))
    assert found == ["Safety: Safe"] * 20 + ["engine_failed"] + ["Safety: Safe"] * 20 + ["engine_failed", "Safety: Safe"]
    engine.stop()


def test_a_row_that_never_reaches_the_device_is_settled_at_once() -> None:
    engine = BatchingEngine(InstantBackend(policy=Policy(tokens=10, overlap=2, most=3)))  # not started: nothing runs
    found = engine.submit(["word " * 100]).result(0)
    assert found.answers[0].failure == Unjudgeable("too_long", "it needs 16 windows, at most 3 are judged")
    assert engine.submit([]).result(0).answers == []


def test_draining_finishes_the_batch_on_the_device_and_hands_the_rest_back() -> None:
    backend = Gate()
    engine = BatchingEngine(backend)
    engine.start()
    running = engine.submit(["running"])
    assert backend.entered.acquire(timeout=WAIT_S)
    waiting = engine.submit(["waiting"])
    engine.drain()
    backend.open.release()
    assert answers(running) == ["Safety: Safe"]
    with pytest.raises(DrainingError):
        waiting.result(WAIT_S)
    with pytest.raises(DrainingError):
        engine.submit(["late"])
    engine.stop()
    engine.stop()


def test_a_dead_engine_thread_fails_every_caller_and_is_reported() -> None:
    reported: list[str] = []
    engine = BatchingEngine(InstantBackend(), on_fatal=reported.append)
    engine.start()
    with pytest.raises(FatalError):
        engine.submit(["[[lost]]", "other"]).result(WAIT_S)
    with pytest.raises(FatalError):
        engine.submit(["after"])
    engine.stop()
    assert reported == ["engine thread died: DeviceLostError: "]


def test_many_threads_are_served_each_with_its_own_answers(engine: BatchingEngine) -> None:
    found: dict[int, list[str]] = {}

    def ask(n: int) -> None:
        marks = [f"{n} [[unsafe]]" if (i + n) % 2 else f"{n}" for i in range(50)]
        found[n] = answers(engine.submit(marks))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert all(found[n] == ["Safety: Unsafe" if (i + n) % 2 else "Safety: Safe" for i in range(50)] for n in range(16))
    engine.stop()


def test_timings_say_how_many_batches_a_request_rode_in() -> None:
    class Fixed(Synchronous):
        model, device = Model("fixed", "1", "p"), "none"
        budget_tokens, max_rows, padded = 10, 2, False

        def prepare(
            self, contents: Sequence[Content], coverage: str | None = None, policy: object = None
        ) -> list[Prepared | Unjudgeable]:
            return [Marked(1, "", responds=False) for _ in contents]

        def run(self, batch: Sequence[Prepared]) -> list[Answer]:
            return [Answer("x") for _ in batch]

        def memory_bytes(self) -> int:
            return 0

    engine = BatchingEngine(Fixed())
    engine.start()
    assert engine.submit(["a"] * 7).result(WAIT_S).timings.batches == 4
    engine.stop()
