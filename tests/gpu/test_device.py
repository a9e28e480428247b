"""On a GPU the engine answers as on the CPU. Skipped where there is none: no machine of CI has one."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")


def _answers(backend: Any, texts: list[str]) -> list[str]:
    todo = list(enumerate(backend.prepare(texts)))
    out: dict[int, str] = {}
    while todo:
        done = backend.run([row for _, row in todo])
        out |= {i: answer.raw for (i, _), answer in zip(todo, done, strict=True) if hasattr(answer, "raw")}
        todo = [(i, row) for (i, _), row in zip(todo, done, strict=True) if not hasattr(row, "raw")]
    return [out[i] for i in range(len(texts))]


TEXTS = [f"What is {n} plus {n}? " * (1 + n % 7) for n in range(60)]


def test_the_fallback_answers_alike_on_gpu_and_cpu() -> None:
    from worker.engine.generate import GenerateBackend
    from worker.engine.loading import load

    found = [_answers(GenerateBackend(load("demo", device=device), budget_tokens=65_536), TEXTS) for device in ("cpu", "cuda")]
    assert found[0] == found[1]


def test_the_packed_pass_in_bf16_answers_as_fp32_on_the_cpu() -> None:
    from worker.engine.attention import VarlenAttention
    from worker.engine.loading import load
    from worker.engine.packed import PackedBackend

    on_gpu = PackedBackend(load("demo", device="cuda"), budget_tokens=65_536)
    assert on_gpu.causal is VarlenAttention
    found, expected = _answers(on_gpu, TEXTS), _answers(PackedBackend(load("demo", device="cpu"), budget_tokens=8192), TEXTS)
    assert sum(a == b for a, b in zip(found, expected, strict=True)) >= 0.95 * len(TEXTS)  # near ties may turn in 16 bit


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
