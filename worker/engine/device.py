"""What a device's errors mean: too little memory, a bad row, or a device that this process has lost."""

import ctypes
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt
import torch

from worker.engine.interfaces import DeviceFullError, DeviceLostError

LARGEST_HEAP_BLOCK = 32 << 20  # bytes; glibc maps larger blocks from the system each time, at a page fault per page
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of mallopt(3)
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_NOT_SUPPORTED")


@contextmanager
def translating_faults(device: torch.device) -> Iterator[None]:
    """Turn torch's errors into DeviceFullError and DeviceLostError; any other error is the batch's own fault."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY):
            traceback.clear_frames(error.__traceback__)  # the frames hold the tensors that filled the device
            if device.type == "cuda":
                torch.cuda.empty_cache()
            raise DeviceFullError from None
        probe(device, error)
        raise


def probe(device: torch.device, error: RuntimeError) -> None:
    """Check that the device still works, since a CUDA error can break its context for good. Raises DeviceLostError."""
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
        torch.ones(1, device=device).sum().item()
    except RuntimeError as lost:
        raise DeviceLostError(str(error).splitlines()[0]) from lost


def tensor_of(values: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Move an array to a device, keeping its type, without waiting for the device."""
    made = torch.from_numpy(values)
    return made.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else made


def to_host(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Start copying a tensor to the host; the returned function waits for it."""
    if tensor.device.type != "cuda":
        return lambda: tensor
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
    copied: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def wait() -> torch.Tensor:
        copied.synchronize()
        return copy

    return wait


def keep_freed_memory() -> None:
    """Make glibc's malloc reuse what a batch freed, instead of returning it and faulting it in again for the next.

    Call it before the engine's threads start. The process keeps its high-water mark; other C libraries are not affected.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)


def has_bf16_units() -> bool:
    """Return whether this CPU has units for bf16 (AVX512_BF16, AMX): twice as fast as fp32; without them bf16 is slower."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)


def gpus() -> list[str]:
    """Return the names of the GPUs that torch sees; does not occupy any."""
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def total_memory(device: torch.device) -> int:
    """Return the memory of a GPU in bytes; 0 for another device."""
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else 0
