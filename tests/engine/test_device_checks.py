"""The checks of `tests/gpu`, with a CPU in place of the GPU: they pass if all is right, and report what is not."""

import pytest
import torch

from tests.services import kernels, on_device
from tests.services.packed import elsewhere
from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.forward import steps, varlen
from worker.engine.model.loading import load

CPU = torch.device("cpu")
DTYPES = [torch.bfloat16, torch.float16]


@pytest.fixture(params=kernels.RELEASES)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> varlen.Varlen:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernels.RELEASES[request.param])
    monkeypatch.setattr("torch.nn.attention.varlen.AuxRequest", kernels.Aux)
    return varlen.flash_varlen()


@pytest.mark.parametrize("dtype", DTYPES)
def test_plain_steps_are_off_by_nothing_and_others_by_much(dtype: torch.dtype) -> None:
    several = {call.name: call for call in on_device.calls(on_device.GQA, 33, CPU, dtype)}
    assert {name: on_device.steps_off(call, getattr(steps, name)) for name, call in several.items()} == dict.fromkeys(several, 0.0)
    halved = on_device.steps_off(several["gate"], lambda gate_up: steps.gate(gate_up) / 2)
    kept = on_device.steps_off(several["add_norm"], lambda x, delta, weight, eps: steps.norm(x + delta, weight, eps))
    shifted = on_device.steps_off(several["rotate"], lambda *args: steps.rotate(*args[:5], args[5] + 1, *args[6:]))
    unweighted = on_device.steps_off(several["merge"], lambda out, lse, *other: out.add_(other[0]) is None or None)
    assert min(halved, kept, shifted, unweighted) > on_device.STEPS_OFF


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sequences", on_device.SEQUENCES)
def test_a_sound_kernel_holds(kernel: varlen.Varlen, sequences: str, causal: bool, dtype: torch.dtype) -> None:
    found = on_device.mixtures_off(kernel, sequences, CPU, dtype, causal=causal)
    assert found.holds, found


def test_an_unsound_one_does_not() -> None:
    """Aligned at the top left, and a log-sum-exp that lies the other way."""

    def top_left(q, k, v, cut_q, cut_k, *, causal):
        lengths = torch.minimum(cut_q.bounds.diff(), cut_k.bounds.diff())
        first = torch.cat([torch.arange(a, a + n) for a, n in zip(cut_k.bounds.tolist(), lengths.tolist(), strict=False)])
        return varlen.varlen_by_loop(q, k[first], v[first], cut_q, varlen.Cuts.of(lengths.numpy(), CPU), causal=causal)

    def lying(*args, causal):
        mixed, lse = varlen.varlen_by_loop(*args, causal=causal)
        return mixed, lse.T

    for kernel in (top_left, lying):
        assert not on_device.mixtures_off(kernel, "unequal", CPU, torch.bfloat16, causal=True).holds


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_demo_model_is_off_by_less_than_it_may(dtype: str) -> None:
    found = elsewhere(lambda: list(on_device.spreads(*on_device.opened(dtype, "cpu"))))
    assert {1, 2, 17, 300, 3000} <= {tokens for tokens, _ in found}
    assert 0 < max(ratio for _, ratio in found) <= 1


def test_answers_in_bf16_turn_where_they_say_so() -> None:
    near = on_device.packed(load("demo", device="cpu", dtype="bfloat16"))
    exact = PackedBackend(load("demo", device="cpu"), budget_tokens=8192, streams=1)
    found = on_device.turned(*(on_device.answers(backend, on_device.TEXTS) for backend in (near, exact)))
    assert found.holds, found
    assert found.texts == 60


@pytest.mark.parametrize("counts", [(60, 1, 1, 5), (60, 5, 0, 9), (60, 3, 0, 16), (2000, 36, 0, 140)])
def test_answers_that_turn_in_silence_or_too_often_do_not_hold(counts: tuple[int, int, int, int]) -> None:
    assert not on_device.Turned(*counts).holds


def test_a_further_pass_behind_rows_of_any_lengths() -> None:
    kept, rectangle = on_device.mix_trees(CPU, torch.bfloat16, [3, 40, 1])
    assert (kept, rectangle) == (44 * 4096, 120 * 4096)
