"""The engine on the demo model while its device misbehaves: every row is settled once, with the same answer as without faults."""

import itertools
import json
import pathlib
import random
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from guardfleet.errors import DrainingError, FatalError
from tests.services.patience import patience
from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.engine import BatchingEngine
from worker.engine.interfaces import Answer, BatchReport, DeviceFullError, DeviceLostError, Launched, Prepared
from worker.engine.model.loading import load

WAIT_S = patience(60)
POISON = 3  # the row at this place fails whatever batch it is in


class Faulty(PackedBackend):
    """Fails where it is told to, before or after the pass."""

    def __init__(self, *, ahead: int, streams: int) -> None:
        super().__init__(load("demo"), budget_tokens=4096, ahead=ahead, streams=streams)
        self.dice = random.Random(7)
        self.full = 0.0
        self.poison: tuple[int, ...] | None = None
        self.error: BaseException | None = None
        self.hang = threading.Event()
        self.hang.set()
        self.entered = threading.Event()

    def launch(self, batch: Sequence[Prepared]) -> Launched:
        self.entered.set()
        assert self.hang.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        if len(batch) > 1 and self.dice.random() < self.full / 2:
            raise DeviceFullError
        launched = super().launch(batch)

        def collect() -> Sequence[Answer | Prepared]:
            done = launched.collect()
            if len(batch) > 1 and self.dice.random() < self.full / 2:
                raise DeviceFullError
            if any(self.poison is not None and tuple(getattr(row, "ids", ())) == self.poison for row in batch):
                raise ValueError("a poisoned row")
            return done

        return launched._replace(collect=collect)


@pytest.fixture(scope="module")
def texts(shared: pathlib.Path) -> list[str]:
    with (shared / "data" / "corpus.jsonl").open() as file:
        return [json.loads(line)["text"] for line in itertools.islice(file, 0, None, 300)]


@pytest.fixture(params=[(0, 1), (1, 1), (2, 2)], ids=["one-at-a-time", "one-ahead", "streams"])
def backend(request: pytest.FixtureRequest) -> Faulty:
    """One batch at a time; as on a GPU, which gets its next batch before the last one's answers are read; two beside each other."""
    ahead, streams = request.param
    return Faulty(ahead=ahead, streams=streams)


def judge(backend: Faulty, texts: list[str], requests: int = 4) -> list[Answer]:
    reports: list[BatchReport] = []
    engine = BatchingEngine(backend, on_batch=reports.append)
    engine.start()
    futures = [engine.submit(texts[i::requests]) for i in range(requests)]
    found: list[Any] = [None] * len(texts)
    for i, future in enumerate(futures):
        found[i::requests] = future.result(WAIT_S).answers
    engine.stop()
    assert sum(report.answered for report in reports) + sum(answer.failure is not None for answer in found) == len(texts)
    return found


@pytest.fixture(scope="module")
def expected(texts: list[str]) -> list[str]:
    """The answers without faults, one batch at a time."""
    return [answer.raw for answer in judge(Faulty(ahead=0, streams=1), texts)]


def test_out_of_memory_at_random_batches_changes_no_answer(backend: Faulty, texts: list[str], expected: list[str]) -> None:
    backend.full = 0.6
    assert [answer.raw for answer in judge(backend, texts)] == expected


def test_a_poisoned_row_ends_as_a_failure_and_takes_nobody_along(backend: Faulty, texts: list[str], expected: list[str]) -> None:
    (row,) = backend.prepare([texts[POISON]])
    backend.poison, backend.full = tuple(getattr(row, "ids", ())), 0.3
    found = judge(backend, texts)
    same = {i for i, text in enumerate(texts) if text == texts[POISON]}
    for i, answer in enumerate(found):
        if i in same:
            assert answer.failure is not None
            assert answer.failure.code == "engine_failed"
        else:
            assert answer.raw == expected[i]


@pytest.mark.parametrize("error", [DeviceLostError("gone"), SystemExit(1), KeyboardInterrupt()])
def test_a_thread_that_dies_fails_every_caller_and_ends_the_process(
    backend: Faulty, texts: list[str], error: BaseException
) -> None:
    ended: list[str] = []
    backend.error = error
    engine = BatchingEngine(backend, on_fatal=ended.append)
    futures = [engine.submit(texts[i : i + 20]) for i in range(0, 80, 20)]
    engine.start()
    for future in futures:
        with pytest.raises(FatalError):
            future.result(WAIT_S)
    engine.stop()
    assert len(ended) == 1
    with pytest.raises(FatalError):
        engine.submit(["too late"])


def test_an_error_that_may_be_a_rows_own_fault_is_isolated_not_fatal(backend: Faulty, texts: list[str]) -> None:
    backend.error = MemoryError()
    assert {answer.failure.code for answer in judge(backend, texts[:8]) if answer.failure} == {"engine_failed"}


def test_a_death_while_planning_leaves_nobody_waiting(backend: Faulty, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.scheduler.pack", lambda *args, **kwargs: 1 / 0)
    ended: list[str] = []
    engine = BatchingEngine(backend, on_fatal=ended.append)
    engine.start()
    with pytest.raises(FatalError):
        engine.submit(texts[:5]).result(WAIT_S)
    engine.stop()
    assert "ZeroDivisionError" in ended[0]


def test_a_hung_pass_shows_its_age_and_draining_still_hands_back_the_rest(backend: Faulty, texts: list[str]) -> None:
    backend.hang.clear()
    engine = BatchingEngine(backend)
    engine.start()
    first = engine.submit(texts[:1])
    assert backend.entered.wait(WAIT_S)
    rest = engine.submit(texts[1:9])
    assert engine.busy_s() > 0
    engine.drain()
    backend.hang.set()
    assert [answer.raw.startswith("Safety: ") for answer in first.result(WAIT_S).answers] == [True]
    with pytest.raises(DrainingError):
        rest.result(WAIT_S)
    engine.stop()
    assert engine.busy_s() == 0
