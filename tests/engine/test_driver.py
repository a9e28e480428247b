"""Whether torch, the driver and the GPU fit together is read from their versions."""

import pathlib

import pytest

from worker.engine.model.driver import Stack, stack

HOPPER, TURING = (9, 0), (7, 5)


@pytest.mark.parametrize(
    ("found", "said", "fix"),
    [
        (Stack("2.13.0+cpu", None, "550.54.14"), "is built without CUDA", "install torch with CUDA"),
        (Stack("2.13.0", "13.0", "550.54.14"), "which needs driver 580 or newer; here is 550.54.14", "update the driver"),
        (Stack("2.13.0", "12.8", "550.54.14"), "sees no GPU, though driver 550.54.14 is loaded", "nvidia-smi"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_said_with_its_cause(found: Stack, said: str, fix: str) -> None:
    assert found.is_blind
    why, what = found.why_blind()
    assert said in why
    assert fix in what


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (Stack("2.13.0", "12.8", "580.1.1", TURING), "older than Ampere"),
        (Stack("2.10.1", "12.8", "580.1.1", HOPPER), "install torch 2.11"),
        (Stack("2.13.0", "12.8", "580.1.1", HOPPER, has_triton=False), "Triton is missing"),
    ],
)
def test_what_makes_a_gpu_slower_is_said(found: Stack, said: str) -> None:
    assert not found.is_blind
    assert said in " ".join(found.slower() or ())


def test_what_fits_needs_no_word() -> None:
    assert Stack("2.13.0", "12.8", "580.1.1", HOPPER).slower() is None
    assert Stack("2.13.0+cpu").slower() is None
    assert not Stack("2.13.0", "12.8").is_blind


def test_the_driver_s_version_is_the_kernel_s(tmp_path: pathlib.Path) -> None:
    assert stack(tmp_path).driver is None
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    line = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.133.20  Release Build  (dvs-builder@U22)\n"
    (tmp_path / "proc/driver/nvidia/version").write_text(line)
    assert stack(tmp_path).driver == "570.133.20"
