"""Passes replayed by real CUDA graphs answer like ordinary ones on the same GPU. Skipped without a GPU."""

import statistics
import time
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")

TEXTS = [f"What is {n} plus {n}? " * (1 + n % 7) for n in range(40)]
CHAT = [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "A model."}]
PASSES = 50


@pytest.fixture(scope="module")
def backends() -> tuple[Any, Any]:
    """One that replays, one that does not."""
    from worker.engine.decoding.cuda_graphs import CudaCapture
    from worker.engine.decoding.model_runner import PackedBackend
    from worker.engine.model.loading import load

    def made(**options: Any) -> Any:
        backend = PackedBackend(load("demo", device="cuda", dtype="bfloat16"), budget_tokens=65_536, **options)
        for mode in backend.modes:
            mode.learns = False
        return backend

    return made(capture=CudaCapture(torch.device("cuda", torch.cuda.current_device()))), made()


def test_each_size_is_recorded_and_agrees_with_the_ordinary_pass(backends: tuple[Any, Any]) -> None:
    """It was held against it at load: a log line says what failed."""
    from worker.engine.decoding.cuda_graphs import SIZES

    replaying, _ = backends
    assert replaying._graphs is not None
    assert [len(graphs) for graphs in replaying._graphs._by_prefix.values()] == [len(SIZES)] * 2


@pytest.mark.parametrize("draft", ["Safety: Safe\nCategories: None", "no such answer"])
def test_replayed_passes_answer_as_ordinary_ones(backends: tuple[Any, Any], draft: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With passes of other sizes, large and ordinary ones among them, and with drafts that fail: near ties alone may turn."""
    from tests.services.packed import draft_always, drive
    from worker.engine.decoding.fixed_pass import FixedPass
    from worker.engine.forward.tree import Tree

    filled: list[Any] = []
    fill = FixedPass.fill
    monkeypatch.setattr(FixedPass, "fill", lambda self, first: (filled.append(self.size), fill(self, first)))
    found = []
    for backend in backends:
        draft_always(backend, Tree.chain(backend.encode(draft)))
        found.append(drive(backend, backend.prepare([*TEXTS, *[CHAT] * 5, *TEXTS * 4]), (1, 3, 2, 64)))
    assert len(set(filled)) > 1
    for one, other in zip(*found, strict=True):
        assert one.raw == other.raw or one.is_close or other.is_close
        assert one.probabilities == pytest.approx(other.probabilities, abs=0.1)


def test_what_a_replay_takes(backends: tuple[Any, Any]) -> None:
    """No bound: the figures are what decides whether graphs are to be the default."""
    from tests.services.packed import draft_always
    from worker.engine.forward.tree import Tree

    for name, backend in zip(("replayed", "ordinary"), backends, strict=True):
        draft_always(backend, Tree.chain(backend.encode("Safety: Safe\nCategories: None")))
        rows, times = backend.prepare(TEXTS[:1]), []
        for _ in range(PASSES):
            began = time.perf_counter()
            backend.run(rows)
            times.append(time.perf_counter() - began)
        print(f"{name}: {1e3 * statistics.median(times):.2f} ms for a pass of {rows[0].n_tokens} tokens")  # noqa: T201
