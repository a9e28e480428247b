"""How fast shapes with random weights are on the device, what takes the time, and how long one text waits, for `gpu.py --all`."""

import random
import statistics
import time
from concurrent.futures import Future
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

from benchmarks.gpu_day import MOST_TEXTS, Day
from worker.engine.bench.cli import measure
from worker.engine.bench.roofline import ceiling, work_of
from worker.engine.bench.scripted import RehearsedBackend
from worker.engine.decoding.partial_answers import PromptRow
from worker.engine.engine import BatchingEngine

SLOW_PATHS = (0.0, 0.1)
LEAST_BATCHES = 4  # per measurement: the first is tokenised and launched alone
TOP = 15
URGENT_TOKENS = 60
BULK_REQUESTS = 4  # concurrent


def rates(day: Day, shape: str, quantize: str = "none", *, compiled: bool = False) -> dict[str, Any]:
    """Measure texts per second at each budget and share of slow rows, and the share of the device's matrix rate."""
    options, started = day.options, time.perf_counter()
    on_gpu = options.device.type == "cuda"
    backend = day.backend(shape, quantize, compiled=compiled)
    day.wait()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(options.device)
    out: dict[str, Any] = {"shape": shape, "quantize": quantize, "is_compiled": compiled, "runs": []}
    out |= {"set_up_s": time.perf_counter() - started, "prefix_tokens": backend.modes[0].prefix.n}
    out["ceiling"] = ceiling(backend, options.seconds / 6)
    sample = options.some_texts(64 if options.is_tiny else 2048)
    tokens = tokens_of(backend, sample)
    out |= {"own_tokens_mean": tokens, "gflop_text": work_of(backend, sample) / len(sample) / 1e9}
    for budget in options.budgets:
        backend.budget_tokens = budget
        batch = max(1, int(budget / tokens))
        for share in SLOW_PATHS:
            backend.slow_path = share
            few = measure(backend, options.some_texts(2 * batch), options.request_texts)  # compiles kernels, grows the workspace
            n = min(MOST_TEXTS, max(LEAST_BATCHES * batch, int(few["device_texts_s"] * options.seconds)))
            found = measure(backend, options.some_texts(n), options.request_texts)
            gflop_s = work_of(backend, options.some_texts(n)) / found["device_s"] / 1e9
            run = {"budget_tokens": budget, "slow_path": share, "texts": n, "gflop_s": gflop_s, **found}
            run |= {
                "mfu": gflop_s / out["ceiling"]["linear_gflop_s"],
                "of_own_products": gflop_s / out["ceiling"]["engine_gflop_s"],
            }
            out["runs"].append(run)
            print(f"    {shape} {quantize} {budget}: {found['device_texts_s']:,.1f} texts/s, {run['mfu']:.1%}", flush=True)
    out["ceiling_afterwards"] = ceiling(backend, options.seconds / 6)
    backend.slow_path, backend.budget_tokens = 0.0, max(options.budgets)
    if on_gpu:
        out["peak_bytes"] = torch.cuda.max_memory_allocated(options.device)
    return out


def tokens_of(backend: RehearsedBackend, texts: list[str]) -> float:
    """Return the mean tokens of a text in a batch."""
    return statistics.mean(row.n_tokens for row in backend.prepare(texts) if isinstance(row, PromptRow))


def profile(day: Day, shape: str) -> dict[str, Any]:
    """Return the kernels that take most of a batch's time, and how much of it the device computes at all."""
    backend, budget = day.backend(shape), max(day.options.budgets)
    backend.slow_path = 0.0
    rows = [row for row in backend.prepare(day.options.some_texts(budget // 64)) if isinstance(row, PromptRow)]
    rows = rows[: max(1, int(budget * len(rows) / sum(row.n_tokens for row in rows)))]
    out: dict[str, Any] = {}
    for name, some in (("batch", rows), ("one_text", rows[:1])):
        backend.run(some)
        day.wait()
        on_gpu = day.options.device.type == "cuda"
        started = time.perf_counter()
        backend.run(some)
        wall = time.perf_counter() - started
        with torch.profiler.profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as traced:
            backend.run(some)
            day.wait()
        out[name] = {"rows": len(some), "wall_ms": wall * 1e3, **kernels_of(traced, wall * 1e6, on_gpu=on_gpu)}
    return out


def kernels_of(traced: Any, wall_us: float, *, on_gpu: bool) -> dict[str, Any]:
    """Summarise all kernels, or torch's operators on a CPU: time, number, and the most expensive ones."""
    events = [event for event in traced.key_averages() if not on_gpu or event.device_type is DeviceType.CUDA]
    spent = {event.key: event.self_device_time_total if on_gpu else event.self_cpu_time_total for event in events}
    calls, total = {event.key: event.count for event in events}, sum(spent.values()) or 1.0
    top = sorted(spent, key=lambda key: -spent[key])[:TOP]
    return {
        "kernels": sum(calls.values()),
        "kernels_ms": total / 1e3,
        "busy": total / wall_us,
        "top": [{"name": name[:120], "share": spent[name] / total, "ms": spent[name] / 1e3, "calls": calls[name]} for name in top],
    }


def interactive(day: Day, shape: str) -> dict[str, Any]:
    """Measure milliseconds from a text to its answer, alone and while bulk requests run."""
    options = day.options
    backend = day.backend(shape)
    backend.slow_path, backend.budget_tokens = 0.0, max(options.budgets)
    text = text_of(backend, URGENT_TOKENS)
    engine = BatchingEngine(backend)
    engine.start()
    try:
        times = 5 if options.is_tiny else 50
        one_at_a_time(engine, text, 3)
        out = {"alone": of(one_at_a_time(engine, text, times))}
        out["beside_bulk"] = of(beside_bulk(engine, text, day))
    finally:
        engine.stop()
    return out


def one_at_a_time(engine: BatchingEngine, text: str, times: int) -> list[float]:
    """Return the milliseconds of each text."""
    out = []
    for _ in range(times):
        started = time.perf_counter()
        engine.submit([text], urgent=True).result()
        out.append((time.perf_counter() - started) * 1e3)
    return out


def beside_bulk(engine: BatchingEngine, text: str, day: Day) -> list[float]:
    """Measure the same while there is always more to do."""
    options, dice = day.options, random.Random(1)
    bulk = options.some_texts(options.request_texts)
    flying: list[Future[Any]] = []
    out: list[float] = []
    for _ in range(3 if options.is_tiny else 30):
        flying = [future for future in flying if not future.done()]
        while len(flying) < BULK_REQUESTS:
            flying.append(engine.submit(bulk))
        time.sleep(dice.random() * 0.1)  # so that it comes at any moment of a batch
        out += one_at_a_time(engine, text, 1)
    return out


def of(milliseconds: list[float]) -> dict[str, float]:
    """Return the median and the slow end."""
    ordered = sorted(milliseconds)
    return {
        "n": len(ordered),
        "p50": statistics.median(ordered),
        "p95": ordered[int(0.95 * (len(ordered) - 1))],
        "max": ordered[-1],
    }


def text_of(backend: RehearsedBackend, tokens: int) -> str:
    """Return a text of this many tokens, or one or two fewer."""
    words: list[str] = []
    while len(backend.encode(" ".join([*words, "house"]))) <= tokens:
        words.append("house")
    return " ".join(words)
