"""On a GPU the demo model answers as on the CPU. Skipped where there is none: no machine of CI has one."""

import pytest


def test_the_demo_model_answers_alike_on_gpu_and_cpu() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine")
    from worker.engine.generate import GenerateBackend
    from worker.engine.loading import load

    texts = [f"What is {n} plus {n}?" for n in range(50)]
    found = []
    for device in ("cpu", "cuda"):
        backend = GenerateBackend(load("demo", device=device), budget_tokens=4096, max_text_tokens=8000)
        rows = [row for row in backend.prepare(texts) if hasattr(row, "n_tokens")]
        found.append([answer.raw for answer in backend.run(rows)])
    assert found[0] == found[1]
