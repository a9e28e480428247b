"""The self test at load: each planted bug is caught in each precision, and a sound pass never is."""

import functools
from typing import Any

import pytest
import torch

from guardfleet.errors import ConfigurationError
from tests.services.bugs import BUGS
from tests.services.packed import elsewhere
from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.forward.cpu_attention import HeadwiseAttention, RowwiseAttention
from worker.engine.interfaces import SelfTestError
from worker.engine.model.loading import load
from worker.engine.verification import attention_probe
from worker.engine.verification import reference as asked
from worker.engine.verification.reference import Reference, ask_transformers
from worker.engine.verification.self_test import hold

PRECISIONS = ("float32", "bfloat16", "float16")


@functools.cache
def reference(dtype: str, lengths: tuple[int, ...], quantized: str = "none") -> Reference:
    return elsewhere(lambda: ask_transformers(load("demo", device="cpu", dtype=dtype, quantized=quantized)))


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less of it, so that it is caught at once: CUDA's kernel is a loop here, and slow in 16 bits."""
    monkeypatch.setattr("worker.engine.verification.reference.LENGTHS", (1, 2, 17, 300, 301))
    monkeypatch.setattr("worker.engine.verification.attention_probe.LENGTHS", tuple(min(n, 400) for n in attention_probe.LENGTHS))
    monkeypatch.setattr("worker.engine.verification.attention_probe.CONTEXTS", tuple(min(n, 400) for n in attention_probe.CONTEXTS))


def held(dtype: str, *, as_on_cuda: bool = True) -> None:
    """CUDA's own pass with a loop in place of its kernel."""
    made = PackedBackend(load("demo", device="cpu", dtype=dtype), budget_tokens=4096, streams=1, as_on_cuda=as_on_cuda)
    elsewhere(lambda: hold(made, reference(dtype, asked.LENGTHS)))


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.usefixtures("brief")
def test_a_planted_bug_is_caught(bug: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reference(dtype, asked.LENGTHS)  # without the bug
    BUGS[bug](monkeypatch)
    with pytest.raises(SelfTestError):
        held(dtype)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_sound_pass_is_not(dtype: str) -> None:
    held(dtype)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_nor_is_what_a_cpu_takes(dtype: str) -> None:
    held(dtype, as_on_cuda=False)


@pytest.mark.parametrize("kind", [HeadwiseAttention, RowwiseAttention, None])
def test_nor_are_eight_bits_whichever_attention_is_the_faster(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.decoding.passes.fastest", lambda *_: kind)
    loaded = load("demo", device="cpu", quantized="int8")
    said = reference("float32", asked.LENGTHS, "int8")
    elsewhere(lambda: hold(PackedBackend(loaded, budget_tokens=4096, streams=1, as_on_cuda=kind is None), said))


def test_numbers_that_are_none_are_refused_in_one_sentence() -> None:
    loaded = load("demo", device="cpu")
    with torch.no_grad():
        loaded.network.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ConfigurationError, match="not finite"):
        ask_transformers(loaded)


def test_where_all_would_take_too_long_the_first_layers_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.engine.verification.reference.PATIENCE_FLOP", {"cpu": 0})
    loaded = load("demo", device="cpu", dtype="bfloat16")
    short = elsewhere(lambda: ask_transformers(loaded))
    assert short.depth == 2
    assert short.texts == []
    assert max(len(probe.encoded.ids) for probe in short.probes) < 3000
    elsewhere(lambda: hold(PackedBackend(loaded, budget_tokens=4096, streams=1), short))
    assert torch.get_default_dtype() is torch.float32
