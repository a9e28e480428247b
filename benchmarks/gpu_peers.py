"""How fast others handle the same prompts on the device: transformers' generate, and vLLM if it is installed."""

import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.gpu_day import Day, NotHereError
from worker.engine.bench.scripted import random_model
from worker.engine.model.loading import LoadedModel
from worker.engine.prompting.prompt import messages_of

ANSWER_TOKENS = 8
VLLM = pathlib.Path(__file__).with_name("gpu_vllm.py")
VLLM_LIMIT_S = 240


def prompts_of(loaded: LoadedModel, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return whole prompts, shortest first."""
    return sorted((encoded.ids for encoded in loaded.prompter.encode([messages_of(text) for text in texts])), key=len)


@torch.inference_mode()
def generate(loaded: LoadedModel, prompts: Sequence[tuple[int, ...]], batch: int) -> float:
    """Return texts per second."""
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


def generate_rates(day: Day, shape: str) -> dict[str, Any]:
    """Measure texts per second at two batch sizes on few rows, and the ratio to the engine's rate."""
    options = day.options
    day.let_go()
    loaded = random_model(shape, options.tokenizer, str(options.device), options.dtype)
    out: dict[str, Any] = {"shape": shape}
    for batch in (2, 4) if options.is_tiny else (64, 512):
        prompts = prompts_of(loaded, options.some_texts(max(batch, 4 if options.is_tiny else 256)))
        generate(loaded, prompts[:batch], batch)  # warms up
        rate = generate(loaded, prompts, batch)
        out[f"batch_{batch}"] = {"texts_s": rate, "texts": len(prompts), "engine_is": times(day, shape, rate)}
    return out


def times(day: Day, shape: str, texts_s: float) -> float | None:
    """Return how many times this rate the engine's best in the shape is; None if that was not measured."""
    runs = day.steps.get(f"rates {shape}", {}).get("runs", [])
    return max(run["device_texts_s"] for run in runs if not run["slow_path"]) / texts_s if runs else None


def vllm(day: Day, shape: str) -> dict[str, Any]:
    """Measure vLLM in a process of its own, which takes all of the device's memory."""
    if importlib.util.find_spec("vllm") is None:
        raise NotHereError("vllm is not installed")
    options = day.options
    day.let_go()
    with tempfile.TemporaryDirectory() as folder:
        loaded = random_model(shape, options.tokenizer, str(options.device), options.dtype)
        loaded.network.save_pretrained(folder)
        prompts = prompts_of(loaded, options.some_texts(2048))
        (pathlib.Path(folder) / "ids.json").write_text(json.dumps(prompts))
        del loaded
        day.let_go()
        command = [sys.executable, str(VLLM), folder, str(ANSWER_TOKENS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=VLLM_LIMIT_S, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"vllm ended with {done.returncode}: {done.stderr.strip()[-300:]}".replace("\n", " "))
    found: dict[str, Any] = json.loads(lines[-1])
    return found | {"shape": shape, "engine_is": times(day, shape, found["texts_s"])}
