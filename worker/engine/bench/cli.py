"""Time the engine against what the machine can do. Needs torch and transformers, none of guardfleet's other dependencies.

With random weights the answers are scripted (`scripted`). `slow_path` is the share of rows whose script leaves the draft at the
severity.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from guardfleet.errors import ConfigurationError
from worker.engine.bench.host_cost import StillBackend, host_cost
from worker.engine.bench.roofline import ceiling, work_of
from worker.engine.bench.scripted import SHAPES, RehearsedBackend, random_model
from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.device import keep_freed_memory
from worker.engine.engine import BatchingEngine
from worker.engine.interfaces import BatchReport
from worker.engine.model.loading import dtype_for, load

T = TypeVar("T")


def measure(backend: PackedBackend, texts: Sequence[str], request_texts: int) -> dict[str, Any]:
    """Run the texts through the engine once, in requests as task threads make them."""
    reports: list[BatchReport] = []
    engine = BatchingEngine(backend, on_batch=reports.append)
    started = time.perf_counter()
    futures = [engine.submit(texts[at : at + request_texts]) for at in range(0, len(texts), request_texts)]
    tokenised = time.perf_counter() - started
    engine.start()
    answers = [answer for future in futures for answer in future.result().answers]
    engine.stop()
    busy = sum(report.seconds for report in reports)
    judged = [answer for answer in answers if answer.failure is None]
    return {
        "texts_s": len(answers) / (time.perf_counter() - started),
        "device_texts_s": len(answers) / busy,
        "tokens_s": sum(answer.input_tokens for answer in judged) / busy,
        "device_s": busy,
        "tokenise_s": tokenised,
        "batches": len(reports),
        "one_pass_share": sum(answer.passes == 1 for answer in judged) / max(1, len(judged)),
        "passes_mean": sum(answer.passes for answer in judged) / max(1, len(judged)),
        "failures": len(answers) - len(judged),
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the whole benchmark; prints as it goes."""
    if args.threads:
        torch.set_num_threads(args.threads)
    device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    dtype = args.dtype if args.dtype != "auto" else dtype_for(torch.device(device), args.quantize)
    texts = texts_of(args.texts, args.rows)
    backend = _aside(lambda: _set_up(args, device, dtype))
    top = _top(backend, args)
    print(
        f"{args.shape or args.model} on {device} in {dtype}, {torch.get_num_threads()} threads in {backend.streams} streams,"
        f" {len(texts)} texts behind a prefix of {backend.modes[0].prefix.n} tokens, {backend.causal.__name__}"
    )
    print(f"ceiling: {top['engine_gflop_s']:,.0f} GFLOP/s on the model's own matrices; torch's linear {top['linear_gflop_s']:,.0f}")
    out: dict[str, Any] = {
        "benchmark": "engine",
        "model": args.shape or args.model,
        "shape": backend.network.shape._asdict(),
        "scripted": isinstance(backend, RehearsedBackend),
        "device": device,
        "dtype": dtype,
        "quantize": args.quantize,
        "threads": torch.get_num_threads(),
        "streams": backend.streams,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "texts": len(texts),
        "turns": args.turns,
        "attention": backend.causal.__name__,
        "padding": 0,
        "ceiling": top,
        "runs": [],
    }
    work = work_of(backend, texts)
    for budget in args.budgets:
        backend.budget_tokens = budget
        for found in _turns(backend, texts, args, work):
            found |= {"budget_tokens": budget}
            out["runs"].append({key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()})
            print(
                f"budget {budget}, slow path {found['slow_path']:.0%}: {found['device_texts_s']:,.2f} texts/s,"
                f" {found['tokens_s']:,.0f} prompt tokens/s, {found['gflop_s']:,.0f} GFLOP/s"
                f" = {found['of_ceiling']:.0%} of the ceiling, {found['of_linear']:.0%} of torch's linear,"
                f" {found['one_pass_share']:.0%} in one pass, time x {found['cost_of_slow_path']:.2f}"
            )
    if args.soak_rows:
        out["soak"] = soak(backend, texts, args.soak_rows, args.request_texts)
        print("resident memory over the soak, MiB: " + ", ".join(str(value) for value in out["soak"]["rss_mib"]))
    return out


def run_host_only(args: argparse.Namespace) -> dict[str, Any]:
    """Measure a process's cost per text, however fast its device is: medians of several turns for each share of slow rows."""
    loaded = random_model("tiny", args.tokenizer, "cpu", "float32")
    texts = texts_of(args.texts, args.rows)
    out: dict[str, Any] = {"benchmark": "engine --host-only", "texts": len(texts), "turns": args.turns, "runs": []}
    backend = StillBackend(loaded, max(args.budgets), streams=1, ahead=1, as_on_cuda=True)
    for budget in args.budgets:
        backend.budget_tokens = budget
        for share in (0.0, *([args.slow_path] if args.slow_path else [])):
            backend.slow_path = share
            turns = [host_cost(backend, texts, args.request_texts) for _ in range(args.turns + 1)][1:]
            found = {key: round(statistics.median(turn[key] for turn in turns), 1) for key in turns[0]}
            out["runs"].append({"budget_tokens": budget, "slow_path": share, **found})
            print(
                f"budget {budget}, slow path {share:.0%}: the engine's thread {found['engine_us']:.1f} us a text = at most"
                f" {1e6 / found['engine_us']:,.0f} texts/s; tokenising {found['prepare_us']:.1f} us"
            )
    return out


def _aside(work: Callable[[], T]) -> T:
    """Run in a thread that ends, as make_backend does: only the engine's thread may compute."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def _set_up(args: argparse.Namespace, device: str, dtype: str) -> PackedBackend:
    keep_freed_memory()
    made_up = args.shape is not None
    if made_up:
        loaded = random_model(args.shape, args.tokenizer, device, dtype, args.quantize)
    else:
        loaded = load(args.model, device=device, dtype=dtype, quantized=args.quantize)
    scripted = made_up or args.slow_path is not None or args.scripted
    kind = RehearsedBackend if scripted else PackedBackend
    return kind(loaded, budget_tokens=max(args.budgets), is_compiled=args.compile, streams=args.streams)


def _turns(backend: PackedBackend, texts: Sequence[str], args: argparse.Namespace, work: float) -> list[dict[str, Any]]:
    """Return medians of several turns; each turn runs every share of slow rows once, between two measurements of the ceiling."""
    shares = [0.0, *([args.slow_path] if args.slow_path else [])]
    turns: dict[float, list[dict[str, Any]]] = {share: [] for share in shares}
    measure(backend, texts[: max(8, len(texts) // 4)], args.request_texts)  # compiles kernels, grows the workspace
    tops = [_top(backend, args)]
    for _ in range(args.turns):
        for share in shares:
            if isinstance(backend, RehearsedBackend):
                backend.slow_path = share
            found = measure(backend, texts, args.request_texts)
            tops.append(_top(backend, args))
            found["gflop_s"] = work / found["device_s"] / 1e9
            around = [{"ceiling": max(top.values()), "linear": top["linear_gflop_s"]} for top in tops[-2:]]
            for name in ("ceiling", "linear"):
                found[f"{name}_gflop_s"] = statistics.mean(top[name] for top in around)
                found[f"of_{name}"] = found["gflop_s"] / found[f"{name}_gflop_s"]
            turns[share].append(found)
    out = []
    for share, several in turns.items():
        found = {key: statistics.median(turn[key] for turn in several) for key in several[0]}
        cost = statistics.median(slow["device_s"] / fast["device_s"] for slow, fast in zip(several, turns[0.0], strict=True))
        out.append(found | {"slow_path": share, "cost_of_slow_path": cost})
    return out


def _top(backend: PackedBackend, args: argparse.Namespace) -> dict[str, float]:
    return _aside(lambda: ceiling(backend, args.ceiling_seconds))


def soak(backend: PackedBackend, texts: Sequence[str], rows: int, request_texts: int) -> dict[str, Any]:
    """Judge the texts repeatedly; return resident memory after each tenth, which must not grow."""
    rss: list[int] = []
    done = 0
    for tenth in range(1, 11):
        while done < rows * tenth // 10:
            measure(backend, texts, request_texts)
            done += len(texts)
        rss.append(_rss_mib())
    return {"rows": done, "rss_mib": rss, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}


def _rss_mib() -> int:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def texts_of(path: pathlib.Path | None, rows: int) -> list[str]:
    """Return texts of a JSONL file of rows or a JSON list of strings; made-up ones without a file. Raises ConfigurationError."""
    if path is None:
        dice = random.Random(1)
        return [" ".join(f"word{dice.randrange(1000)}" for _ in range(dice.randrange(5, 120))) for _ in range(rows)]
    try:
        found = _texts_in(path, rows)
    except OSError as error:
        raise ConfigurationError(f"--texts {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigurationError(f"--texts {path} is not JSON ({error}).") from error
    if not found:
        raise ConfigurationError(f"--texts {path} holds no texts: give JSONL of rows with a text, or a JSON list of strings.")
    return found


def _texts_in(path: pathlib.Path, rows: int) -> list[str]:
    if path.suffix == ".json":
        found = json.loads(path.read_text())
        return [text for text in found if isinstance(text, str)][:rows] if isinstance(found, list) else []
    with path.open() as file:
        lines = [json.loads(line) for line in file]
    every = max(1, len(lines) // rows)
    return [row["text"] for row in lines[::every] if isinstance(row, dict) and isinstance(row.get("text"), str)][:rows]


def parser() -> argparse.ArgumentParser:
    """Build the command line of `guardfleet bench engine`."""
    made = argparse.ArgumentParser(prog="guardfleet bench engine", description="Time the engine against the machine's ceiling.")
    what = made.add_mutually_exclusive_group()
    what.add_argument("--model", default="demo", help="demo, a folder, or a hub name (default: demo)")
    what.add_argument("--shape", choices=SHAPES, help="random weights in this shape instead")
    made.add_argument("--tokenizer", default="demo", help="folder of the tokenizer for --shape (default: the demo model's)")
    made.add_argument("--texts", type=pathlib.Path, help="JSONL of rows with a text, or JSON list of strings")
    made.add_argument("--rows", type=int, default=256)
    made.add_argument("--device", default="auto")
    made.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    made.add_argument("--quantize", default="none", choices=("none", "int8", "fp8"), help="hold the layers' matrices in eight bits")
    made.add_argument("--threads", type=int, default=0, help="0: all cores")
    made.add_argument("--streams", type=int, default=0, help="passes in parallel on a CPU; 0: as many as threads")
    made.add_argument("--budgets", type=lambda value: [int(part) for part in value.split(",")], default=[8192])
    made.add_argument("--slow-path", type=float, help="also time with this share of the rows forced off the draft")
    made.add_argument("--scripted", action="store_true", help="script the answers (folders with random weights)")
    made.add_argument("--compile", action="store_true", help="use torch.compile between the matrix products; prints its cost")
    made.add_argument("--turns", type=int, default=3, help="take medians of this many turns")
    made.add_argument("--request-texts", type=int, default=1024)
    made.add_argument("--ceiling-seconds", type=float, default=3.0)
    made.add_argument("--soak-rows", type=int, default=0, help="continue for this many rows and report memory")
    made.add_argument("--host-only", action="store_true", help="measure the engine thread's cost per text, computing nothing")
    made.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return made


def main(argv: Sequence[str]) -> int:
    """Parse the arguments, run, print."""
    args = parser().parse_args(argv)
    out = run_host_only(args) if args.host_only else run(args)
    if args.json:
        print(json.dumps(out))
    return 0
