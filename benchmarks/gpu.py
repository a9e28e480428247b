#!/usr/bin/env python3
"""Time the engine on a GPU against its matrix rate and against transformers' generate, on random weights in the real shapes.

    python benchmarks/gpu.py --shapes 0.6b,8b --texts FILE --tokenizer FOLDER --out results.json

Needs torch and transformers alone. generate gets the same prompts, whole, sorted and padded, and is forced to eight tokens each.
"""

import argparse
import gc
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from worker.engine import bench
from worker.engine.loading import LoadedModel
from worker.engine.rehearsal import SHAPES, random_model
from worker.prompt import messages_of

ANSWER_TOKENS = 8


def main() -> None:
    """Shape by shape: the engine first, then generate at each batch size."""
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
    args = parser.parse_args()
    unknown = set(args.shapes) - set(SHAPES)
    if unknown:
        parser.error(f"no such shapes: {', '.join(sorted(unknown))}")
    found = {shape: measure(shape, args) for shape in args.shapes}
    if args.out:
        args.out.write_text(json.dumps(found))
    print(json.dumps(found))


def measure(shape: str, args: argparse.Namespace) -> dict[str, Any]:
    """The engine's figures in a shape, and how many times generate's rate they are."""
    options = f"--shape {shape} --tokenizer {args.tokenizer} --rows {args.rows} --device {args.device} --dtype {args.dtype}"
    options += f" --budgets {args.budgets} --slow-path 0.1 --turns {args.turns}"
    texts = ["--texts", str(args.texts)] if args.texts else []
    found = bench.run(bench.parser().parse_args([*options.split(), *texts]))
    best = max(run["device_texts_s"] for run in found["runs"] if not run["slow_path"])
    gc.collect()  # the engine's copy of the model makes room
    loaded = random_model(shape, args.tokenizer, args.device, args.dtype)
    prompts = prompts_of(loaded, bench.texts_of(args.texts, args.generate_rows))
    found["generate"] = {}
    for batch in args.generate_batches:
        rate = max(generate(loaded, prompts, batch) for _ in range(2))  # the first warms up
        found["generate"][batch] = {"texts_s": rate, "engine_is": best / rate}
        print(f"{shape}: generate at batch {batch}: {rate:,.2f} texts/s, the engine is {best / rate:.1f} x that", flush=True)
    return found


def prompts_of(loaded: LoadedModel, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Whole prompts, shortest first."""
    return sorted((encoded.ids for encoded in loaded.prompter.encode([messages_of(text) for text in texts])), key=len)


@torch.inference_mode()
def generate(loaded: LoadedModel, prompts: Sequence[tuple[int, ...]], batch: int) -> float:
    """Texts per second."""
    wait = torch.cuda.synchronize if loaded.device.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    for at in range(0, len(prompts), batch):
        some = prompts[at : at + batch]
        longest = len(some[-1])
        ids = torch.tensor([[0] * (longest - len(ids)) + list(ids) for ids in some], device=loaded.device)
        mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in some], device=loaded.device)
        loaded.network.generate(
            ids, attention_mask=mask, min_new_tokens=ANSWER_TOKENS, max_new_tokens=ANSWER_TOKENS, do_sample=False, pad_token_id=0
        )
    wait()
    return len(prompts) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
