"""On a GPU the engine answers as on the CPU. Skipped without a GPU: no machine of CI has one."""

import logging
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
    pytest.mark.filterwarnings("default"),  # what else is on such a machine warns of its own business
]

from tests.services import on_device  # noqa: E402

DTYPES = ["bfloat16", "float16"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_fallback_answers_alike_on_gpu_and_cpu(dtype: str) -> None:
    from worker.engine.decoding.padded import GenerateBackend
    from worker.engine.model.loading import load

    several = [
        on_device.answers(GenerateBackend(load("demo", device=device, dtype=kind), budget_tokens=65_536), on_device.TEXTS)
        for device, kind in (("cuda", dtype), ("cpu", "float32"))
    ]
    found = on_device.turned(*several)
    assert found.holds, found


def test_the_packed_pass_in_bf16_answers_as_fp32_on_the_cpu() -> None:
    from worker.engine.decoding.model_runner import PackedBackend
    from worker.engine.forward.attention import VarlenAttention
    from worker.engine.model.loading import load

    on_gpu = PackedBackend(load("demo", device="cuda", dtype="bfloat16"), budget_tokens=65_536)
    assert on_gpu.causal is VarlenAttention
    exact = PackedBackend(load("demo", device="cpu"), budget_tokens=8192)
    found = on_device.turned(*(on_device.answers(backend, on_device.TEXTS) for backend in (on_gpu, exact)))
    assert found.holds, found


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_self_test_holds(dtype: str) -> None:
    from worker.engine.verification.self_test import hold

    backend, reference = on_device.opened(dtype, "cuda")
    assert {n: ratio for n, ratio in on_device.spreads(backend, reference) if not ratio <= 1} == {}
    hold(backend, reference)


@pytest.mark.parametrize("quantize", ["none", "int8", "fp8"])
def test_a_model_is_opened_with_the_packed_pass(quantize: str, caplog: pytest.LogCaptureFixture) -> None:
    from worker.engine.decoding.model_runner import PackedBackend
    from worker.engine.factory import make_backend
    from worker.engine.model.quantize import FP8_CAPABILITY
    from worker.engine.spec import Spec

    if quantize == "fp8" and torch.cuda.get_device_capability() < FP8_CAPABILITY:
        pytest.skip("no fp8 matrix units")
    with caplog.at_level(logging.WARNING):
        made = make_backend(Spec(model="demo", device="cuda", quantize=quantize))
    assert isinstance(made, PackedBackend), caplog.text
    assert "engine_" not in caplog.text  # neither fallen back nor unfused
    assert {answer.failure for answer in on_device.answers(made, on_device.TEXTS)} == {None}


def test_where_the_kernel_refuses_the_gpu_padded_generate_judges(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.services.kernels import NO_GPU_FOR_IT
    from worker.engine.decoding.padded import GenerateBackend
    from worker.engine.factory import make_backend
    from worker.engine.spec import Spec

    def refusing(*args: Any, **options: Any) -> Any:
        raise RuntimeError(NO_GPU_FOR_IT)

    monkeypatch.setattr("worker.engine.forward.attention.varlen_for", lambda device: refusing)
    with caplog.at_level(logging.WARNING):
        made = make_backend(Spec(model="demo", device="cuda"))
    assert isinstance(made, GenerateBackend)
    assert NO_GPU_FOR_IT in caplog.text
    assert {answer.failure for answer in on_device.answers(made, on_device.TEXTS[:4])} == {None}


def test_eight_bits_are_made_on_the_way_to_the_gpu() -> None:
    """So a GPU that has no room for 16-bit weights can have a model in eight."""
    from worker.engine.model.quantize import EightBitLinear, quantize

    def owner() -> Any:
        return torch.nn.ModuleDict({"proj": torch.nn.Linear(1024, 1024, bias=False, dtype=torch.bfloat16)})

    layers = [SimpleNamespace(self_attn=owner(), mlp=owner()) for _ in range(32)]
    in_16_bit = 64 * 1024 * 1024 * 2
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    quantize(SimpleNamespace(model=SimpleNamespace(layers=layers)), "int8", torch.device("cuda"))
    made = [part.proj for layer in layers for part in (layer.self_attn, layer.mlp)]
    assert {type(part) for part in made} == {EightBitLinear}
    assert {part.matrix.values.device.type for part in made} == {"cuda"}
    assert torch.cuda.max_memory_allocated() - before < 0.8 * in_16_bit  # half of it, and one layer's on its way


def test_a_further_pass_makes_no_rectangle() -> None:
    """One long row beside many short ones: keys and values are laid one behind the other once, never padded to the longest."""
    device, lengths = torch.device("cuda"), [40] * 200 + [4000]
    on_device.mix_trees(device, torch.bfloat16, [40])  # compiles
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept, rectangle = on_device.mix_trees(device, torch.bfloat16, lengths)
    taken = torch.cuda.max_memory_allocated() - before
    assert taken < 4 * kept < rectangle / 4, (taken, kept)  # the rows' own, their copy, and queries, mixtures and a workspace


def test_a_launch_does_not_wait_for_the_gpu() -> None:
    """Neither a first pass nor a further one: the device would stand still while the next batch is made."""
    from worker.engine.forward.tree import Tree
    from worker.engine.model.loading import load

    backend = on_device.packed(load("demo", device="cuda", dtype="bfloat16"))
    for mode in backend.modes:
        mode.learns, mode.draft = False, Tree.chain(mode.draft.tokens[:1])  # all rows go on
    rows = backend.prepare(on_device.TEXTS)
    on_device.answers(backend, on_device.TEXTS)  # kernels are compiled, workspaces have grown
    try:
        torch.cuda.set_sync_debug_mode("error")
        first = backend.launch(rows)
        torch.cuda.set_sync_debug_mode("default")
        further = first.collect()
        assert not any(hasattr(row, "raw") for row in further)
        torch.cuda.set_sync_debug_mode("error")
        second = backend.launch(further)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(second.collect()) == len(rows)
