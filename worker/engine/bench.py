"""Times the engine against what the machine can do. Needs torch and transformers, nothing else of guardfleet's dependencies.

Random weights do not emit the answer grammar, so for them the answers are scripted: the pass does all of its work, the argmax
included, and then takes the scripted token. `slow_path` is the share of rows whose script leaves the draft at the severity.
"""

import argparse
import json
import os
import pathlib
import platform
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch.nn import functional

from guardfleet.verdict import Model
from worker.engine.batching import BatchingEngine
from worker.engine.contract import BatchReport
from worker.engine.device import keep_freed_memory
from worker.engine.drafts import grammar
from worker.engine.loading import LoadedModel, load, prompter_of, tokenizer_of
from worker.engine.network import Shape
from worker.engine.packed import PackedBackend, PromptRow

SHAPES: dict[str, dict[str, Any]] = {
    "0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "4b": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32},
    "8b": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
}
POSITIONS = 32_768
COMMON = {"vocab_size": 151_936, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": POSITIONS, "rope_theta": 1e6}
LEAST_REPEATS = 3


class RehearsedBackend(PackedBackend):
    """Takes each token from a script after having computed it. The drafts do not learn, so that slow rows stay slow."""

    def __init__(self, loaded: LoadedModel, budget_tokens: int) -> None:
        super().__init__(loaded, budget_tokens=budget_tokens)
        self.slow_path = 0.0
        self._random = random.Random(1)
        self._scripts: dict[int, list[int]] = {}
        for mode in self.modes:
            mode.drafts.frozen = True
        seeds = grammar(self.encode, min(self._ends), responds=False)
        drafted = [*self.modes[0].draft.tokens, min(self._ends)]
        self._fast, self._slow = drafted, [tokens for tokens, _ in seeds if tokens[: len(drafted)] != drafted]

    def _choice(self, row: PromptRow, begun: Sequence[int], likeliest: int) -> int:
        script = self._scripts.get(id(row))
        if script is None:
            slow = self._random.random() < self.slow_path
            script = self._scripts[id(row)] = self._random.choice(self._slow) if slow else self._fast
        token = script[len(begun)]
        if len(begun) + 1 == len(script):
            del self._scripts[id(row)]
        return token


def flops(shape: Shape, prefix: int, own: int, reads: int) -> float:
    """What one row costs in one pass, 2 for a multiply-add: the last layer's queries and feed-forward only where it is read."""
    keys_values = 4 * shape.hidden * shape.kv_heads * shape.head_dim
    rest = 4 * shape.hidden * shape.heads * shape.head_dim + 6 * shape.hidden * shape.intermediate
    pair = 4 * shape.heads * shape.head_dim
    matrices = shape.layers * own * keys_values + ((shape.layers - 1) * own + reads) * rest
    pairs = (shape.layers - 1) * (own * prefix + own * (own + 1) / 2) + reads * (prefix + own - (reads - 1) / 2)
    return matrices + pair * pairs + reads * 2 * shape.hidden * shape.vocabulary


def ceiling(backend: PackedBackend, seconds: float) -> dict[str, float]:
    """GFLOP/s of nothing but the model's own matrix products: as the engine calls them, and as torch's linear does."""
    network, shape = backend.network, backend.network.shape
    rows = network.chunk if network.device.type == "cpu" else 8192
    inputs = {
        width: torch.randn(rows, width, dtype=network.dtype, device=network.device)
        for width in (shape.hidden, shape.heads * shape.head_dim, shape.intermediate)
    }
    wide = [inputs[shape.hidden]] * 3 + [inputs[shape.heads * shape.head_dim]] + [inputs[shape.hidden]] * 2
    wide += [inputs[shape.intermediate]]

    def engine() -> None:
        for layer in network.layers:
            for linear, x in zip(layer[:7], wide, strict=True):
                linear(x)

    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    outs = [q, kv, kv, shape.hidden, shape.intermediate, shape.intermediate, shape.hidden]
    weights = [torch.randn(out, x.shape[1], dtype=x.dtype, device=x.device) for out, x in zip(outs, wide, strict=True)]

    def plain() -> None:
        for _ in range(shape.layers):
            for weight, x in zip(weights, wide, strict=True):
                functional.linear(x, weight)

    done = 2.0 * rows * shape.layers * sum(weight.numel() for weight in weights)
    with torch.inference_mode():
        return {
            "engine_gflop_s": _rate(engine, done, seconds, network.device),
            "linear_gflop_s": _rate(plain, done, seconds, network.device),
        }


def _rate(work: Callable[[], None], flop: float, seconds: float, device: torch.device) -> float:
    """The median of repeats."""
    work()
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while len(rates) < LEAST_REPEATS or time.perf_counter() < end:
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        rates.append(flop / (time.perf_counter() - started) / 1e9)
    return round(statistics.median(rates), 1)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(backend: PackedBackend, texts: Sequence[str], request_texts: int) -> dict[str, Any]:
    """One run over the texts through the engine, in requests as task threads make them."""
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


def work_of(backend: PackedBackend, texts: Sequence[str]) -> float:
    """FLOPs of the first passes over the texts."""
    mode = backend.modes[0]
    rows = [row for row in backend.prepare(texts) if isinstance(row, PromptRow)]
    draft = len(mode.draft.tokens)
    return sum(flops(backend.network.shape, row.prefix.n, len(row.ids) + draft, 1 + draft) for row in rows)


def random_model(name: str, tokenizer_folder: str, device: str, dtype: str) -> LoadedModel:
    """A network of the given shape with random weights, behind a tokenizer and template from a folder or `demo`."""
    from transformers import Qwen3Config, Qwen3ForCausalLM  # noqa: PLC0415 - seconds to import

    tokenizer = tokenizer_of(tokenizer_folder)
    on = torch.device(device)
    as_type = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
    torch.manual_seed(1)
    default = torch.get_default_dtype()
    torch.set_default_dtype(as_type)
    try:
        with on:
            config = Qwen3Config(**COMMON, **SHAPES[name], eos_token_id=tokenizer.eos_token_id, tie_word_embeddings=name != "8b")
            network = Qwen3ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(default)
    identity = Model(f"random-{name}", "1", "none", is_demo=True)
    return LoadedModel(network, tokenizer, prompter_of(tokenizer), on, identity, POSITIONS)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The whole benchmark; prints as it goes."""
    if args.threads:
        torch.set_num_threads(args.threads)
    device = args.device if args.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    dtype = args.dtype if args.dtype != "auto" else "bfloat16" if device.startswith("cuda") else "float32"
    texts = texts_of(args.texts, args.rows)
    with ThreadPoolExecutor(1) as pool:  # a thread that ends, as in make.make_backend: the engine's alone is to compute
        backend, top = pool.submit(_set_up, args, device, dtype).result()
    print(
        f"{args.shape or args.model} on {device} in {dtype}, {torch.get_num_threads()} threads,"
        f" {len(texts)} texts behind a prefix of {backend.modes[0].prefix.n} tokens"
    )
    print(f"ceiling: {top['engine_gflop_s']:,.0f} GFLOP/s on the model's own matrices; torch's linear {top['linear_gflop_s']:,.0f}")
    out: dict[str, Any] = {
        "benchmark": "engine",
        "model": args.shape or args.model,
        "shape": backend.network.shape._asdict(),
        "scripted": isinstance(backend, RehearsedBackend),
        "device": device,
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "texts": len(texts),
        "turns": args.turns,
        "padding": 0,
        "ceiling": top,
        "runs": [],
    }
    work = work_of(backend, texts)
    for budget in args.budgets:
        backend.budget_tokens = budget
        for found in _turns(backend, texts, args):
            found |= {"budget_tokens": budget, "gflop_s": work / found["device_s"] / 1e9}
            found["of_ceiling"] = found["gflop_s"] / max(top.values())
            out["runs"].append({key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()})
            print(
                f"budget {budget}, slow path {found['slow_path']:.0%}: {found['device_texts_s']:,.2f} texts/s,"
                f" {found['tokens_s']:,.0f} prompt tokens/s, {found['gflop_s']:,.0f} GFLOP/s"
                f" = {found['of_ceiling']:.0%} of the ceiling,"
                f" {found['one_pass_share']:.0%} in one pass, time x {found['cost_of_slow_path']:.2f}"
            )
    if args.soak_rows:
        out["soak"] = soak(backend, texts, args.soak_rows, args.request_texts)
        print("resident memory over the soak, MiB: " + ", ".join(str(value) for value in out["soak"]["rss_mib"]))
    return out


def _set_up(args: argparse.Namespace, device: str, dtype: str) -> tuple[PackedBackend, dict[str, float]]:
    keep_freed_memory()
    made_up = args.shape is not None
    loaded = random_model(args.shape, args.tokenizer, device, dtype) if made_up else load(args.model, device=device, dtype=dtype)
    scripted = made_up or args.slow_path is not None or args.scripted
    made = RehearsedBackend(loaded, max(args.budgets)) if scripted else PackedBackend(loaded, budget_tokens=max(args.budgets))
    return made, ceiling(made, args.ceiling_seconds)


def _turns(backend: PackedBackend, texts: Sequence[str], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Medians of several turns, each share of slow rows once a turn."""
    shares = [0.0, *([args.slow_path] if args.slow_path else [])]
    turns: dict[float, list[dict[str, Any]]] = {share: [] for share in shares}
    measure(backend, texts[: max(8, len(texts) // 4)], args.request_texts)  # compiles kernels, grows the workspace
    for _ in range(args.turns):
        for share in shares:
            if isinstance(backend, RehearsedBackend):
                backend.slow_path = share
            turns[share].append(measure(backend, texts, args.request_texts))
    out = []
    for share, several in turns.items():
        found = {key: statistics.median(turn[key] for turn in several) for key in several[0]}
        cost = statistics.median(slow["device_s"] / fast["device_s"] for slow, fast in zip(several, turns[0.0], strict=True))
        out.append(found | {"slow_path": share, "cost_of_slow_path": cost})
    return out


def soak(backend: PackedBackend, texts: Sequence[str], rows: int, request_texts: int) -> dict[str, Any]:
    """Judge the texts over and over; resident memory after each tenth, which must not grow."""
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
    """Texts of a JSONL file of rows, or of a JSON file of strings; made up ones without a file."""
    if path is None:
        dice = random.Random(1)
        return [" ".join(f"word{dice.randrange(1000)}" for _ in range(dice.randrange(5, 120))) for _ in range(rows)]
    if path.suffix == ".json":
        found: list[str] = json.loads(path.read_text())
        return found[:rows]
    with path.open() as file:
        lines = [json.loads(line) for line in file]
    every = max(1, len(lines) // rows)
    return [row["text"] for row in lines[::every] if "text" in row][:rows]


def parser() -> argparse.ArgumentParser:
    """The command line of `guardfleet bench engine`."""
    made = argparse.ArgumentParser(prog="guardfleet bench engine", description="Time the engine against the machine's ceiling.")
    what = made.add_mutually_exclusive_group()
    what.add_argument("--model", default="demo", help="demo, a folder, or a hub name (default: demo)")
    what.add_argument("--shape", choices=SHAPES, help="random weights in this shape instead")
    made.add_argument("--tokenizer", default="demo", help="folder of the tokenizer for --shape (default: the demo model's)")
    made.add_argument("--texts", type=pathlib.Path, help="JSONL of rows with a text, or JSON list of strings")
    made.add_argument("--rows", type=int, default=256)
    made.add_argument("--device", default="auto")
    made.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"))
    made.add_argument("--threads", type=int, default=0, help="0: all cores")
    made.add_argument("--budgets", type=lambda value: [int(part) for part in value.split(",")], default=[8192])
    made.add_argument("--slow-path", type=float, help="also time with this share of the rows forced off the draft")
    made.add_argument("--scripted", action="store_true", help="script the answers (folders with random weights)")
    made.add_argument("--turns", type=int, default=3, help="medians are of so many")
    made.add_argument("--request-texts", type=int, default=1024)
    made.add_argument("--ceiling-seconds", type=float, default=3.0)
    made.add_argument("--soak-rows", type=int, default=0, help="go on for so many rows and report memory")
    made.add_argument("--json", action="store_true", help="the last line of stdout is one JSON")
    return made


def main(argv: Sequence[str]) -> int:
    """Parse, run, print."""
    args = parser().parse_args(argv)
    out = run(args)
    if args.json:
        print(json.dumps(out))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
