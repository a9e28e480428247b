"""The pass of CUDA on each release's variable-length attention, and which engine judges where there is none."""

import logging
import sys
from typing import Any

import pytest
import torch
from torch.nn.attention import varlen as of_torch

from guardfleet.errors import ConfigurationError
from tests.services import kernels
from tests.services.packed import drive, elsewhere
from worker.engine import opening
from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.decoding.padded import GenerateBackend
from worker.engine.factory import make_backend
from worker.engine.forward import varlen
from worker.engine.model.loading import load
from worker.engine.spec import Spec
from worker.engine.verification.reference import Reference
from worker.engine.verification.self_test import hold

TEXTS = [f"What is {n} plus {n}? " * (1 + n % 5) for n in range(30)]


class OnCuda(PackedBackend):
    """The pass that CUDA takes, on a CPU."""

    def __init__(self, loaded: Any, **options: Any) -> None:
        super().__init__(loaded, **options, as_on_cuda=True)


def _take(monkeypatch: pytest.MonkeyPatch, kernel: kernels.Kernel | None = None) -> None:
    """Torch's kernel, or another in its place, wherever CUDA would ask one."""
    if kernel is not None:
        monkeypatch.setattr(of_torch, "varlen_attn", kernel)
        monkeypatch.setattr(of_torch, "AuxRequest", kernels.Aux)
    for module in ("attention", "tree_attention"):
        monkeypatch.setattr(f"worker.engine.forward.{module}.varlen_for", lambda device: varlen.flash_varlen())
    monkeypatch.setattr("worker.engine.opening.PackedBackend", OnCuda)


def _make(caplog: pytest.LogCaptureFixture) -> tuple[Any, str]:
    """What judges the demo model, and what the log says of it."""
    with caplog.at_level(logging.WARNING):
        made = make_backend(Spec(model="demo", device="cpu", dtype="float32", streams=1))
    return made, "\n".join(record.getMessage() for record in caplog.records)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return elsewhere(lambda: opening.ask_transformers(load("demo", device="cpu")))


@pytest.fixture(scope="module")
def expected() -> list[str]:
    plain = PackedBackend(load("demo", device="cpu"), budget_tokens=4096, streams=1)
    return [answer.raw for answer in drive(plain, plain.prepare(TEXTS))]


@pytest.mark.parametrize("release", kernels.RELEASES)
def test_the_pass_of_cuda_holds_on_each_release(
    release: str, reference: Reference, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _take(monkeypatch, kernels.RELEASES[release])
    made = OnCuda(load("demo", device="cpu"), budget_tokens=4096, streams=1)
    elsewhere(lambda: hold(made, reference))
    assert [answer.raw for answer in drive(made, made.prepare(TEXTS), (7, 13))] == expected


@pytest.mark.parametrize("release", kernels.RELEASES)
def test_a_model_is_opened_on_each_release(release: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    _take(monkeypatch, kernels.RELEASES[release])
    made, said = _make(caplog)
    assert isinstance(made, OnCuda)
    assert not said


@pytest.mark.parametrize("release", kernels.RELEASES)
@pytest.mark.parametrize("causal", [False, True])
def test_sequences_that_ask_one_query_or_none_are_not_taken_for_one_each(
    release: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flash attention, told that the longest asks one, would lay groups of heads in place of the queries, one for each sequence."""
    _take(monkeypatch, kernels.RELEASES[release])
    dice = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(n, heads, 32, generator=dice) for n, heads in ((3, 4), (12, 2), (12, 2)))
    cuts = [varlen.Cuts.of(lengths, torch.device("cpu")) for lengths in ([1, 0, 1, 0, 0, 1], [2, 3, 4, 1, 2, 0])]
    found, lse = varlen.flash_varlen()(q, k, v, cuts[0], cuts[1], causal=causal)
    right, right_lse = varlen.varlen_by_loop(q, k, v, cuts[0], cuts[1], causal=causal)
    torch.testing.assert_close(found, right)
    torch.testing.assert_close(lse.masked_fill(lse == torch.inf, -torch.inf), right_lse)


def _without_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    monkeypatch.delattr("torch.nn.attention.varlen", raising=False)
    _take(monkeypatch)


LACKING = {
    "no variable-length attention": (_without_the_module, "does not have"),
    "no log-sum-exp": (lambda monkeypatch: _take(monkeypatch, kernels.without_aux), "does not give"),
    "a GPU that it refuses": (lambda monkeypatch: _take(monkeypatch, kernels.refusing), kernels.NO_GPU_FOR_IT),
}


@pytest.mark.parametrize("what", LACKING)
def test_without_the_kernel_padded_generate_judges_and_one_line_says_why(
    what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plant, why = LACKING[what]
    plant(monkeypatch)
    made, said = _make(caplog)
    assert isinstance(made, GenerateBackend)
    assert len(caplog.records) == 1
    assert said.startswith("engine_fallback: ")
    assert why in said
    assert {answer.failure for answer in made.run(made.prepare(["Is it so?"]))} == {None}


def test_where_generate_cannot_run_either_one_sentence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text that is tried is the last thing at load that only generate runs: the reference's answers are the first."""
    _take(monkeypatch, kernels.refusing)
    asked: list[int] = []
    decode = GenerateBackend._decode

    def failing(self: GenerateBackend, rows: Any) -> Any:
        asked.append(len(rows))
        if len(rows) == 1:
            raise RuntimeError("no kernel image is available for execution on the device\nCompile with ...")
        return decode(self, rows)

    monkeypatch.setattr(GenerateBackend, "_decode", failing)
    with pytest.raises(ConfigurationError, match=r"^model 'demo' cannot run on cpu: no kernel image is available for execution"):
        make_backend(Spec(model="demo", device="cpu", dtype="float32", streams=1))
    assert asked[-1] == 1
