"""What must hold on the device, and how fast the parts of a pass are, for `gpu.py --all`."""

import functools
import inspect
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
import transformers
from torch.nn.attention import varlen as of_torch

from benchmarks.gpu_day import Day
from tests.services import on_device
from worker.engine.bench.scripted import COMMON, SHAPES, random_model
from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.forward import steps
from worker.engine.forward.attention import VarlenAttention, Workspace
from worker.engine.forward.varlen import Cuts, varlen_for
from worker.engine.interfaces import SelfTestError
from worker.engine.model import vocabulary
from worker.engine.model.loading import load
from worker.engine.model.shape import Shape
from worker.engine.verification import reference
from worker.engine.verification.attention_probe import misses
from worker.engine.verification.self_test import hold

REPEATS, WARM_UPS = 20, 3
SMALL = on_device.GQA._replace(heads=4, kv_heads=2, head_dim=32)


def shape_of(name: str) -> Shape:
    """Return a published shape, or the tiny one."""
    sizes = SHAPES[name]
    return Shape(
        sizes["num_hidden_layers"],
        sizes["num_attention_heads"],
        COMMON["num_key_value_heads"],
        COMMON["head_dim"],
        sizes["hidden_size"],
        sizes["intermediate_size"],
        COMMON["vocab_size"],
    )


def environment(day: Day) -> dict[str, Any]:
    """Describe the machine."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "cpus": os.cpu_count(),
        "varlen_attn": str(inspect.signature(of_torch.varlen_attn)) if hasattr(of_torch, "varlen_attn") else None,
        "c_compiler": shutil.which("cc") or shutil.which("gcc") or shutil.which("clang"),
    }
    try:
        import triton  # noqa: PLC0415 - not on every machine

        found["triton"] = triton.__version__
    except ImportError:
        found["triton"] = None
    if day.options.device.type == "cuda":
        of = torch.cuda.get_device_properties(day.options.device)
        found |= {"gpu": of.name, "memory": of.total_memory, "multiprocessors": of.multi_processor_count}
        found |= {"capability": torch.cuda.get_device_capability(day.options.device), "driver": driver()}
    return found


def driver() -> str | None:
    """Return what the driver's own tool reports, if it is installed."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    asked = [tool, "--query-gpu=driver_version,clocks.max.sm,clocks.max.memory,power.limit", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, timeout=20, check=False).stdout.strip()


def milliseconds(day: Day, work: Callable[[], object]) -> float:
    """Return milliseconds per call, the mean of several given to the device at once."""
    repeats = 2 if day.options.is_tiny else REPEATS
    for _ in range(1 if day.options.is_tiny else WARM_UPS):
        work()
    day.wait()
    started = time.perf_counter()
    for _ in range(repeats):
        work()
    day.wait()
    return (time.perf_counter() - started) / repeats * 1e3


def kernels(day: Day, shapes: tuple[str, ...]) -> dict[str, Any]:
    """Compare the fused steps with the plain ones: the difference, the speed, and the share of the memory's rate."""
    device, dtype = day.options.device, getattr(torch, day.options.dtype)
    found = steps
    if device.type == "cuda":
        from worker.engine.forward import triton_kernels  # noqa: PLC0415 - imports Triton

        triton_kernels.try_out(device)
        found = triton_kernels
    out: dict[str, Any] = {"are_fused": found is not steps, "holds": True}
    for name in shapes:
        out[name] = {}
        for call in on_device.calls(shape_of(name), 257 if day.options.is_tiny else 65_536, device, dtype):
            off = on_device.steps_off(call, getattr(found, call.name))
            arguments = call.arguments()
            fast, plain = (milliseconds(day, functools.partial(getattr(kind, call.name), *arguments)) for kind in (found, steps))
            of_call = {"steps_off": off, "ms": fast, "gb_s": call.moved / fast / 1e6, "plain_ms": plain}
            out[name][call.name] = of_call
            out["holds"] &= off <= on_device.STEPS_OFF
    return out


def attention(day: Day, shapes: tuple[str, ...]) -> dict[str, Any]:
    """Compare attention over sequences, prompts and trees with plain arithmetic; measure its rate on typical rows."""
    device = day.options.device
    varlen = varlen_for(device)
    out: dict[str, Any] = {"off": {}, "misses": {}}
    for dtype in (torch.bfloat16, torch.float16):
        for name in on_device.SEQUENCES:
            for causal in (False, True):
                for heads, kv_heads in ((4, 4), (16, 8)):
                    off = on_device.mixtures_off(varlen, name, device, dtype, causal=causal, heads=heads, kv_heads=kv_heads)
                    said = f"{dtype}, {name}, {'causal' if causal else 'all'}, heads {heads}/{kv_heads}".removeprefix("torch.")
                    out["off"][said] = {"mixture_steps": off.mixture, "lse": off.lse, "holds": off.holds}
        for shape in (SMALL,) if day.options.is_tiny else (SMALL, on_device.GQA):
            out["misses"][f"{dtype}, heads {shape.heads}"] = misses(VarlenAttention, Workspace(shape, device, dtype))
    out["holds"] = all(off["holds"] for off in out["off"].values()) and not any(out["misses"].values())
    return out | {name: attention_rates(day, shape_of(name)) for name in shapes}


def attention_rates(day: Day, shape: Shape) -> dict[str, float]:
    """Return TFLOP/s of the rows' own keys, and of the prefix that all of them share."""
    device, dtype = day.options.device, getattr(torch, day.options.dtype)
    rows, own, prefix = (4, 16, 24) if day.options.is_tiny else (400, 160, 201)
    q = torch.randn(rows * own, shape.heads, shape.head_dim, device=device, dtype=dtype)
    room = torch.randn(2, shape.kv_heads, rows * own, shape.head_dim, device=device, dtype=dtype)
    k, v = room.transpose(1, 2)
    each, whole, shared = (Cuts.of(lengths, device) for lengths in ([own] * rows, [rows * own], [prefix]))
    varlen, pair = varlen_for(device), 4 * shape.heads * shape.head_dim
    causal = milliseconds(day, lambda: varlen(q, k, v, each, each, causal=True))
    dense = milliseconds(day, lambda: varlen(q, k[:prefix], v[:prefix], whole, shared, causal=False))
    return {
        "own_ms": causal,
        "own_tflop_s": pair * rows * own * (own + 1) / 2 / causal / 1e9,
        "prefix_ms": dense,
        "prefix_tflop_s": pair * rows * own * prefix / dense / 1e9,
    }


def self_test(day: Day, dtype: str) -> dict[str, Any]:
    """Test the demo model: the share of the allowed spread that each probe takes, and whether everything holds."""
    backend, asked = on_device.opened(dtype, str(day.options.device))
    out: dict[str, Any] = {"sentence": None, "holds": True}
    out["ratios"] = [{"tokens": tokens, "of_allowed": round(ratio, 4)} for tokens, ratio in on_device.spreads(backend, asked)]
    try:
        hold(backend, asked)
    except SelfTestError as error:
        out |= {"sentence": str(error), "holds": False}
    return out


def equality(day: Day, n: int) -> dict[str, Any]:
    """Compare the demo model's answers in 16 bits on the device with those in fp32 on the CPU."""
    options = day.options
    texts = options.some_texts(n) if options.texts else on_device.TEXTS
    near = on_device.packed(load("demo", device=str(options.device), dtype=options.dtype))
    found = on_device.answers(near, texts)
    exact = on_device.answers(PackedBackend(load("demo", device="cpu"), budget_tokens=8192, streams=1), texts)
    turned = on_device.turned(found, exact)
    return turned._asdict() | {"holds": turned.holds}


def load_time(day: Day, shape: str) -> dict[str, Any]:
    """Measure the seconds of a load from a folder, and the self test's share. No answers: random weights never end one."""
    options = day.options
    day.let_go()
    out: dict[str, Any] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        made = work()
        day.wait()
        out[name] = time.perf_counter() - started
        return made

    # Random weights end no answer, and the demo's tokenizer fills little of a real vocabulary.
    with patch.object(reference, "TEXTS", 0), patch.object(vocabulary, "LEAST_FILLED", 0.0):
        with tempfile.TemporaryDirectory() as folder:
            made = random_model(shape, options.tokenizer, str(options.device), options.dtype)
            made.network.save_pretrained(folder)
            made.tokenizer.save_pretrained(folder)
            del made
            day.let_go()
            loaded = timed("load_s", lambda: load(folder, device=str(options.device), dtype=options.dtype))
        asked = timed("ask_transformers_s", lambda: reference.ask_transformers(loaded))
        asked = asked._replace(probes=[probe._replace(is_prompt=False) for probe in asked.probes])  # whose answers would be read
        backend = timed("pass_s", lambda: PackedBackend(loaded, budget_tokens=0, streams=1, as_on_cuda=True))
        timed("hold_s", lambda: hold(backend, asked))
    whole = sum(out.values())
    return out | {
        "seconds": whole,
        "self_test_share": (out["ask_transformers_s"] + out["hold_s"]) / whole,
        "budget": backend.budget_tokens,
    }
