"""What fits into which memory, computed: sizes of the published models, token budgets, and the errors where one does not fit."""

import pathlib
from typing import Any

import pytest
import transformers
from transformers import Qwen3Config

from guardfleet.cli.doctor import model
from guardfleet.errors import ConfigurationError
from guardfleet.settings import load_settings
from worker.engine.bench.scripted import COMMON, SHAPES
from worker.engine.model import loading, memory
from worker.engine.model.host_memory import available_bytes
from worker.engine.model.memory import GPU_TOKENS, LEAST_TOKENS, PUBLISHED, Device, Precision, batch_tokens, plan, plan_for
from worker.engine.model.shape import shape_of

GB = 10**9
BF16, INT8, FP8 = Precision("bfloat16"), Precision("bfloat16", "int8"), Precision("bfloat16", "fp8")
# Of each size in each precision, thousands of tokens of a batch on an empty GPU of so many GB; None where it does not fit.
BUDGETS: dict[tuple[str, str], dict[int, float | None]] = {
    ("0.6B", "bfloat16"): {16: 29.7, 24: 46.7, 40: 65.5, 80: 65.5, 141: 65.5},
    ("0.6B", "int8"): {16: 30.6, 24: 47.7, 40: 65.5, 80: 65.5, 141: 65.5},
    ("4B", "bfloat16"): {16: 10.4, 24: 22.1, 40: 45.5, 80: 65.5, 141: 65.5},
    ("4B", "int8"): {16: 15.7, 24: 27.4, 40: 50.9, 80: 65.5, 141: 65.5},
    ("8B", "bfloat16"): {16: None, 24: 9.3, 40: 31.5, 80: 65.5, 141: 65.5},
    ("8B", "int8"): {16: 7.9, 24: 18.9, 40: 41.1, 80: 65.5, 141: 65.5},
}


def gpu(total_gb: float, name: str = "NVIDIA Any", free_gb: float | None = None, capability: tuple[int, int] = (9, 0)) -> Device:
    return Device(name, int(total_gb * GB), int((total_gb if free_gb is None else free_gb) * GB), capability)


@pytest.mark.parametrize(("size", "kind"), BUDGETS)
def test_budgets_of_the_published_sizes(size: str, kind: str) -> None:
    precision = BF16 if kind == "bfloat16" else INT8
    for total, thousands in BUDGETS[size, kind].items():
        made = plan(PUBLISHED[size], precision, gpu(total))
        assert made.fits is (thousands is not None)
        assert made.fits is (made.budget_tokens >= LEAST_TOKENS)
        if thousands is not None:
            assert made.budget_tokens == pytest.approx(thousands * 1000, rel=0.02)
        assert plan(PUBLISHED[size], FP8, gpu(total)).budget_tokens == plan(PUBLISHED[size], INT8, gpu(total)).budget_tokens


def test_a_cell_by_hand() -> None:
    """8B in bf16 on an A10G of 24.1 GB."""
    layer = 4096 * (32 * 128) * 2 + 4096 * (8 * 128) * 2 + 3 * 4096 * 12_288  # q and o, k and v, feed-forward
    numbers = 36 * (layer + 2 * 4096 + 2 * 128) + 4096 + 2 * 151_936 * 4096  # with the norms; embedding and head
    assert numbers == 8_190_735_360  # as its card says: 8B
    made = plan(PUBLISHED["8B"], BF16, gpu(24.1))
    assert made.weights == 2 * numbers == 16_381_470_720
    token = 3 * (2 * 36 * 8 * 128 * 2) + 2 * (6 * 4096 + 3 * 12_288 + 6 * 32 * 128)
    assert token == 614_400
    room = 24_100_000_000 - 16_381_470_720 - 536_870_912 - 1024 * 151_936 * 2
    assert made.budget_tokens == int(0.85 * room / token) == 9505


@pytest.mark.parametrize(("size", "millions"), [("0.6B", 596), ("4B", 4022), ("8B", 8191)])
def test_weights_are_counted_as_the_network_has_them(size: str, millions: int) -> None:
    import torch
    from transformers import Qwen3ForCausalLM

    with torch.device("meta"):
        network = Qwen3ForCausalLM(Qwen3Config(**COMMON, **SHAPES[size.lower()]))
    counted = sum(weight.numel() for weight in network.parameters())
    assert counted // 10**6 == millions or round(counted / 1e6) == millions
    assert memory.weights_bytes(PUBLISHED[size], BF16) == 2 * counted
    assert memory.weights_bytes(PUBLISHED[size], Precision("float32")) == 4 * counted
    assert shape_of(network.config) == PUBLISHED[size].shape


def test_the_largest_models_on_the_smallest_gpus() -> None:
    assert plan(PUBLISHED["8B"], BF16, gpu(24)).budget_tokens >= 4096
    with pytest.raises(ConfigurationError) as said:
        of("8B", BF16, gpu(16, "NVIDIA A4000", capability=(8, 6)))
    assert str(said.value) == (
        "model 'guard' in bfloat16 does not fit on NVIDIA A4000: it needs at least 17.6 GB, 16.4 GB of them its weights, and "
        "16.0 GB of 16.0 GB are free; use 0.6B (1.2 GB) or 4B (8.0 GB) in bfloat16, or 0.6B (0.8 GB), 4B (4.4 GB) or 8B (9.4 GB) "
        "in int8 (GUARDFLEET_ENGINE__QUANTIZE)."
    )


def of(size: str, precision: Precision, device: Device) -> Any:
    return plan_for("guard", Qwen3Config(**COMMON, **SHAPES[size.lower()]), precision, device)


def test_a_gpu_that_somebody_fills_is_to_be_freed() -> None:
    with pytest.raises(ConfigurationError, match=r"and 3.0 GB of 80.0 GB are free; free its memory, or use 0.6B \(1.2 GB\) in bf"):
        of("8B", BF16, gpu(80, free_gb=3))
    with pytest.raises(ConfigurationError, match=r"are free; free its memory, or use another device\.$"):
        of("8B", BF16, gpu(80, free_gb=0.4))


def test_fp8_is_named_where_the_gpu_has_it() -> None:
    with pytest.raises(
        ConfigurationError, match=r"8B \(9.4 GB\) in int8 \(GUARDFLEET_ENGINE__QUANTIZE\), or .*8B \(9.4 GB\) in fp8"
    ):
        of("8B", BF16, gpu(16, capability=(8, 9)))


def test_what_fits_is_named_in_the_type_that_was_asked_for() -> None:
    small = gpu(3, capability=(8, 6))
    for dtype, named in (("float16", "0.6B (1.2 GB) in float16, or"), ("float32", "0.6B (1.2 GB) in bfloat16, or")):
        with pytest.raises(ConfigurationError) as said:
            of("4B", Precision(dtype), small)
        assert f"use {named} 0.6B (0.8 GB) in int8 (GUARDFLEET_ENGINE__QUANTIZE)." in str(said.value)


def test_a_cpu_holds_the_weights_as_they_are_loaded() -> None:
    cpu = Device("cpu", 10 * GB, 10 * GB)
    assert of("0.6B", Precision("float32"), cpu).weights == 4 * (596_049_920 + 151_936 * 1024)
    with pytest.raises(ConfigurationError) as said:
        of("4B", Precision("float32", "int8"), cpu)
    assert str(said.value) == (
        "model 'guard' in int8 does not fit on cpu: it needs at least 17.6 GB to load its weights, and 10.0 GB are free; "
        "use 0.6B (3.0 GB) in float32, or 0.6B (1.5 GB) or 4B (8.8 GB) in bfloat16."
    )


def test_the_budget_at_work_is_the_plans() -> None:
    """After loading, what is free is less by the weights."""
    for size, sizes in PUBLISHED.items():
        made = plan(sizes, BF16, gpu(24))
        assert batch_tokens(sizes.shape, 2, int(24 * GB) - made.weights) == made.budget_tokens <= GPU_TOKENS, size


def test_a_plan_is_told() -> None:
    a10g = gpu(24.1, "NVIDIA A10G", capability=(8, 6))
    assert of("8B", BF16, a10g).told() == "in bfloat16 on NVIDIA A10G (24.1 GB): weights 16.4 GB, batches of about 9,500 tokens"
    assert (
        of("8B", INT8, a10g)
        .told(4096)
        .endswith("in int8 on NVIDIA A10G (24.1 GB): weights 9.4 GB, batches of 4,096 tokens, as set")
    )
    assert (
        of("0.6B", Precision("float32"), Device("cpu", 8 * GB, 8 * GB)).told()
        == "in float32 on cpu: weights 3.0 GB, 8.0 GB available"
    )
    assert plan_for("guard", None, BF16, None) is None


def test_what_does_not_fit_is_refused_before_its_weights_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def unread(*_: Any, **__: Any) -> Any:
        raise AssertionError("the weights were read")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", unread)
    monkeypatch.setattr("worker.engine.model.source.digest_of", unread)
    monkeypatch.setattr(loading, "device_of", lambda on: Device("cpu", 10**6, 10**6))
    with pytest.raises(ConfigurationError, match=r"model 'demo' in float32 does not fit on cpu: .* and 1 MB are free; use another"):
        loading.load("demo", device="cpu")


def test_doctor_shows_the_plan(tmp_path: pathlib.Path) -> None:
    settings = load_settings(data_dir=tmp_path, device="cpu", dtype="float32")
    seen = model._Seen(settings, None)
    assert "guardfleet-demo, 2 MB of weights, complete; 8,192 positions" in str(seen.files())
    said = str(seen.memory())
    assert said.startswith("in float32 on cpu: weights 7 MB, ")
    assert said.endswith(" GB available")
    seen = model._Seen(settings, lambda on: gpu(24.1, "NVIDIA A10G"))
    seen.files()
    assert seen.memory() == "in float32 on NVIDIA A10G (24.1 GB): weights 4 MB, batches of about 65,500 tokens"


def files(root: pathlib.Path, **contents: str) -> pathlib.Path:
    for name, content in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


MACHINE = {"proc/meminfo": "MemTotal: 64000000 kB\nMemAvailable:   32000000 kB\n"}
V2 = {"proc/self/cgroup": "0::/a.slice/b.scope\n"}
V1 = {"proc/self/cgroup": "9:cpu:/x\n4:memory:/docker/abc\n0::/\n"}


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (MACHINE, 32_000_000 << 10),
        ({**MACHINE, **V2, "sys/fs/cgroup/a.slice/b.scope/memory.max": "max"}, 32_000_000 << 10),
        (  # the group's own
            {
                **MACHINE, **V2,
                "sys/fs/cgroup/a.slice/b.scope/memory.max": "8000000000",
                "sys/fs/cgroup/a.slice/b.scope/memory.current": "5000000000",
                "sys/fs/cgroup/a.slice/b.scope/memory.stat": "anon 1\ninactive_file 1000000000\n",
            },
            4_000_000_000,
        ),
        (  # of one around it, and used up
            {
                **MACHINE, **V2,
                "sys/fs/cgroup/a.slice/memory.max": "100",
                "sys/fs/cgroup/a.slice/memory.current": "500",
                "sys/fs/cgroup/a.slice/memory.stat": "anon 1\n",
            },
            0,
        ),
        (  # seen from within a container, whose own group is the root
            {
                **MACHINE, **V1,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "3000",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1000",
                "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 500\n",
            },
            2500,
        ),
        ({}, None),
    ],
)  # fmt: skip
def test_memory_that_is_available(contents: dict[str, str], expected: int | None, tmp_path: pathlib.Path) -> None:
    assert available_bytes(files(tmp_path, **contents)) == expected
