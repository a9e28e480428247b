"""On a GPU the engine answers as on the CPU. Skipped where there is none: no machine of CI has one."""

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")


TEXTS = [f"What is {n} plus {n}? " * (1 + n % 7) for n in range(60)]
# On a CPU 1 in 100 answers of the demo model turns from fp32 to bf16, and each of those says that it was close, as 7 in 100 do. So
# of 60 more than 3 turn once in 300 runs, and none that does not say so; were most of them close, it would say nothing.
MOST_TURNED, MOST_CLOSE = 3, 15


def answers(backend: Any) -> list[Any]:
    todo = list(enumerate(backend.prepare(TEXTS)))
    out: dict[int, Any] = {}
    while todo:
        done = backend.run([row for _, row in todo])
        out |= {i: answer for (i, _), answer in zip(todo, done, strict=True) if hasattr(answer, "raw")}
        todo = [(i, row) for (i, _), row in zip(todo, done, strict=True) if not hasattr(row, "raw")]
    return [out[i] for i in range(len(TEXTS))]


def hold(in_16_bit: list[Any], exact: list[Any]) -> None:
    """Near ties alone may turn in 16 bit, and say that they are."""
    turned = [found for found, wanted in zip(in_16_bit, exact, strict=True) if found.raw != wanted.raw]
    assert [found.raw for found in turned if not found.is_close] == []
    assert len(turned) <= MOST_TURNED
    assert sum(found.is_close for found in in_16_bit) <= MOST_CLOSE


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_fallback_answers_alike_on_gpu_and_cpu(dtype: str) -> None:
    from worker.engine.generate import GenerateBackend
    from worker.engine.loading import load

    found = answers(GenerateBackend(load("demo", device="cuda", dtype=dtype), budget_tokens=65_536))
    hold(found, answers(GenerateBackend(load("demo", device="cpu"), budget_tokens=65_536)))


def test_the_packed_pass_in_bf16_answers_as_fp32_on_the_cpu() -> None:
    from worker.engine.attention import VarlenAttention
    from worker.engine.loading import load
    from worker.engine.packed import PackedBackend

    on_gpu = PackedBackend(load("demo", device="cuda", dtype="bfloat16"), budget_tokens=65_536)
    assert on_gpu.causal is VarlenAttention
    hold(answers(on_gpu), answers(PackedBackend(load("demo", device="cpu"), budget_tokens=8192)))


def test_eight_bits_are_made_on_the_way_to_the_gpu() -> None:
    """So a GPU that has no room for 16-bit weights can have a model in eight."""
    from worker.engine.quantize import quantize

    layers = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024, bias=False, dtype=torch.bfloat16) for _ in range(64)))
    in_16_bit = sum(weight.nbytes for weight in layers.parameters())
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    quantize(SimpleNamespace(model=layers), "int8", torch.device("cuda"))
    assert {weight.device.type for weight in layers.parameters()} == {"cuda"}
    assert torch.cuda.max_memory_allocated() - before < 0.8 * in_16_bit  # half of it, and one layer's on its way


def test_causal_with_more_keys_than_queries_is_aligned_at_the_bottom_right() -> None:
    """The tails of the last layer and the prefix rest on it."""
    from worker.engine.attention import flash_varlen

    torch.manual_seed(1)
    queries, keys, heads, kv_heads, dim = [5, 130, 1, 64], [206, 331, 202, 64], 4, 2, 64
    q = torch.randn(sum(queries), heads, dim, device="cuda", dtype=torch.bfloat16)
    k, v = torch.randn(2, sum(keys), kv_heads, dim, device="cuda", dtype=torch.bfloat16)

    def cumulative(lengths: list[int]) -> Any:
        return torch.tensor([0, *lengths], device="cuda").cumsum(0).to(torch.int32)

    found = flash_varlen(q, k, v, cumulative(queries), cumulative(keys), max(queries), max(keys))
    at_q = at_k = 0
    for n, m in zip(queries, keys, strict=True):
        parts = (q[at_q : at_q + n], k[at_k : at_k + m], v[at_k : at_k + m])
        mask = torch.ones(n, m, dtype=torch.bool, device="cuda").tril(m - n)
        wide = [part.float()[None].transpose(1, 2) for part in parts]
        expected = torch.nn.functional.scaled_dot_product_attention(*wide, attn_mask=mask, enable_gqa=True)
        torch.testing.assert_close(found[at_q : at_q + n].float(), expected[0].transpose(0, 1), atol=2e-2, rtol=2e-2)
        at_q, at_k = at_q + n, at_k + m
