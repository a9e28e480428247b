#!/usr/bin/env python3
"""Time the engine on a GPU against its matrix rate and against transformers' generate, on random weights in the real shapes.

    python benchmarks/gpu.py --shapes 0.6b,8b --texts FILE --tokenizer FOLDER --out results.json
    python benchmarks/gpu.py --all --texts FILE --out day.json

`--all` measures in 8 minutes (`--minutes`) what there is to know about a GPU, most important first: whether kernels, attention,
self test and answers hold, how fast they and whole passes are, what takes the time, and how long one text waits. It writes its file
after each step; `--resume` continues one. `--device cpu --tiny` tries the steps themselves without a GPU.

Needs only torch and transformers. generate gets the same prompts, whole, sorted and padded, and is forced to eight tokens each.
"""

import argparse
import functools
import gc
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from benchmarks import gpu_checks as checks
from benchmarks.gpu_day import Day, Options, Step, go_through
from benchmarks.gpu_peers import generate, generate_rates, prompts_of, vllm
from benchmarks.gpu_rates import interactive, profile, rates
from worker.engine.bench import cli
from worker.engine.bench.scripted import SHAPES, random_model
from worker.engine.device import keep_freed_memory


def main() -> int:
    """Measure shape by shape: the engine first, then generate at each batch size. Or run the whole day."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=lambda value: value.split(","), default=["0.6b", "8b"])
    parser.add_argument("--tokenizer", default="demo")
    parser.add_argument("--texts", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--budgets", default="16384,65536")
    parser.add_argument("--generate-batches", type=lambda value: [int(part) for part in value.split(",")], default=[64, 512])
    parser.add_argument("--generate-rows", type=int, default=1024)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path)
    day = parser.add_argument_group("the whole day")
    day.add_argument("--all", action="store_true", help="run all steps; uses texts, tokenizer, device, dtype, out")
    day.add_argument("--minutes", type=float, default=8, help="skip steps that no longer fit (default: 8)")
    day.add_argument("--seconds", type=float, default=3, help="per measurement (default: 3)")
    day.add_argument("--equal-texts", type=int, default=2000, help="texts of --texts whose answers are compared (default: 2000)")
    day.add_argument("--only", default="", help="only steps whose names begin with one of these, separated by commas")
    day.add_argument("--resume", nargs="?", const="anew", help="continue --out: finished steps are kept")
    day.add_argument("--tiny", action="store_true", help="use the smallest sizes instead of the shapes")
    args = parser.parse_args()
    unknown = set(args.shapes) - set(SHAPES)
    if unknown:
        parser.error(f"no such shapes: {', '.join(sorted(unknown))}")
    if args.all:
        return whole_day(args)
    found = {shape: measured(shape, args) for shape in args.shapes}
    if args.out:
        args.out.write_text(json.dumps(found))
    print(json.dumps(found))
    return 0


def measured(shape: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return the engine's figures in a shape, and how many times generate's rate they are."""
    options = f"--shape {shape} --tokenizer {args.tokenizer} --rows {args.rows} --device {args.device} --dtype {args.dtype}"
    options += f" --budgets {args.budgets} --slow-path 0.1 --turns {args.turns}"
    texts = ["--texts", str(args.texts)] if args.texts else []
    found = cli.run(cli.parser().parse_args([*options.split(), *texts]))
    best = max(run["device_texts_s"] for run in found["runs"] if not run["slow_path"])
    gc.collect()  # free the engine's copy of the model
    loaded = random_model(shape, args.tokenizer, args.device, args.dtype)
    prompts = prompts_of(loaded, cli.texts_of(args.texts, args.generate_rows))
    found["generate"] = {}
    for batch in args.generate_batches:
        rate = max(generate(loaded, prompts, batch) for _ in range(2))  # the first warms up
        found["generate"][batch] = {"texts_s": rate, "engine_is": best / rate}
        print(f"{shape}: generate at batch {batch}: {rate:,.2f} texts/s, the engine is {best / rate:.1f} x that", flush=True)
    return found


def whole_day(args: argparse.Namespace) -> int:
    """Run all steps; return 1 if one failed, or something that must hold does not."""
    keep_freed_memory()
    device = torch.device(args.device)
    options = Options(device, args.dtype, args.tokenizer, args.texts, args.tiny, args.seconds)
    only = tuple(args.only.split(","))
    found = go_through([step for step in steps_of(args) if step.name.startswith(only)], Day(options), args)
    print(json.dumps(found))
    return int(any(step["status"] == "failed" or step.get("holds") is False for step in found.get("steps", {}).values()))


def steps_of(args: argparse.Namespace) -> Iterator[Step]:
    """Yield the steps, most important first. Steps of one model are adjacent, so that it is made once."""
    small, large, middle = ("tiny",) * 3 if args.tiny else ("0.6b", "8b", "4b")
    shapes = tuple(dict.fromkeys((small, large)))
    do = functools.partial
    yield Step("environment", checks.environment, (3, 1))
    yield Step("attention", do(checks.attention, shapes=shapes), (15, 2))
    yield Step("kernels", do(checks.kernels, shapes=shapes), (25, 2))
    for dtype in ("bfloat16", "float16"):
        yield Step(f"self test {dtype}", do(checks.self_test, dtype=dtype), (12, 3))
    for shape in shapes:
        yield Step(f"rates {shape}", do(rates, shape=shape), (40 if shape == large else 20, 6))
        yield Step(f"profile {shape}", do(profile, shape=shape), (8, 2))
        yield Step(f"interactive {shape}", do(interactive, shape=shape), (15, 2))
    yield Step("equality", do(checks.equality, n=args.equal_texts), (20, 3))
    yield Step(f"load {small}", do(checks.load_time, shape=small), (30, 3))
    for shape in dict.fromkeys((large, small)):
        for quantize in ("fp8", "int8"):
            yield Step(f"rates {shape} {quantize}", do(rates, shape=shape, quantize=quantize), (40 if shape == large else 20, 5))
    yield Step(f"rates {small} compiled", do(rates, shape=small, compiled=True), (60, 60))
    if middle not in shapes:
        yield Step(f"rates {middle}", do(rates, shape=middle), (30, 10))
    for shape in shapes:
        yield Step(f"generate {shape}", do(generate_rates, shape=shape), (25 if shape == large else 15, 4))
    yield Step(f"vllm {small}", do(vllm, shape=small), (90, 5))


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a step that was cut off may have left a thread inside torch, which aborts if the interpreter ends first
