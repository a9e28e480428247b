"""On a GPU the kernels compute what plain torch does. Skipped without a GPU: no machine of CI has one."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
    pytest.mark.filterwarnings("default"),  # what else is on such a machine warns of its own business
]

from tests.services import on_device  # noqa: E402

DTYPES = ["bfloat16", "float16"]
DEVICE = torch.device("cuda")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 130, 4097])
def test_a_fused_step_is_the_plain_one(tokens: int, dtype: str) -> None:
    from worker.engine.forward import triton_kernels

    triton_kernels.try_out(DEVICE)
    several = on_device.calls(on_device.GQA, tokens, DEVICE, getattr(torch, dtype))
    found = {call.name: on_device.steps_off(call, getattr(triton_kernels, call.name)) for call in several}
    assert {name: off for name, off in found.items() if not off <= on_device.STEPS_OFF} == {}


def test_the_device_takes_the_fused_steps() -> None:
    from worker.engine.forward import triton_kernels
    from worker.engine.forward.steps import steps_for

    assert steps_for(DEVICE).merge is triton_kernels.merge


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [(4, 4), (4, 2), (16, 8), (8, 1)])
@pytest.mark.parametrize("sequences", on_device.SEQUENCES)
def test_attention_over_sequences_is_the_loop_s(sequences: str, heads: tuple[int, int], causal: bool, dtype: str) -> None:
    """Causal is aligned at the bottom right; (heads, queries) is how the log-sum-exp lies; queries may see no key."""
    from worker.engine.forward.varlen import flash_varlen

    many, few = heads
    kernel, kind = flash_varlen(), getattr(torch, dtype)
    found = on_device.mixtures_off(kernel, sequences, DEVICE, kind, causal=causal, heads=many, kv_heads=few)
    assert found.holds, found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [on_device.GQA, on_device.GQA._replace(heads=4, kv_heads=2, head_dim=32)])
def test_prompts_and_trees_see_their_keys_and_no_others(shape: Any, dtype: str) -> None:
    from worker.engine.forward.attention import VarlenAttention, Workspace
    from worker.engine.verification.attention_probe import misses

    assert misses(VarlenAttention, Workspace(shape, DEVICE, getattr(torch, dtype))) is None
