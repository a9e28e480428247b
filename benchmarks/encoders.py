#!/usr/bin/env python3
"""How fast a 102 M classifier is judged on this machine's cores: the engine, transformers and ONNX Runtime, in one run.

    python -m benchmarks.encoders [--turns 3] [--tokens 4096] [--lengths 32,128,512] [--seconds 40] [--layers 12]

RoBERTa base's shape with random weights, texts of exactly so many tokens (special ones included), each method in its best form: the
engine with all its streams, its tokeniser included; the others on ids that are ready, as many rows at once as have 1,024 tokens.
Methods alternate in each turn; figures are medians. On a machine that others use too, compare `texts_cpu_s`: texts for each second
of processor time, times the cores. Then the engine's interactive lane in an open loop: texts arrive at random (Poisson) at 70 % of
the measured rate, whether the last ones are answered or not, and latency counts from the scheduled arrival. The last line of stdout
is one JSON.
"""

import argparse
import json
import pathlib
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import models, pre_tokenizers, processors

from worker.engine.engine import BatchingEngine
from worker.engine.factory import make_backend, make_engine
from worker.engine.model.vocabulary import PLAIN
from worker.engine.spec import Spec

PEERS = "onnxruntime, onnx and onnxscript are not installed: python -m pip install onnxruntime onnx onnxscript"
VOCABULARY = 50_265
LABELS = ["human", *(f"kind {at}" for at in range(1, 64))]  # many, so that errors are not those of one random direction
TOGETHER = 1024  # tokens of a peer's batch
SILENT: Any = {"on_batch": lambda report: None, "on_fatal": print}
LOAD = 0.7  # of the sustained rate
SEED = 7
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
PLAIN_WORDS = PLAIN[0].split()  # a tokenizer that knows no plain word is refused at load
WORDS = [*SPECIAL, *PLAIN_WORDS, *(f"w{number}" for number in range(len(SPECIAL) + len(PLAIN_WORDS), VOCABULARY))]
Rows = np.ndarray[Any, Any]  # (rows, tokens) of ids
Judge = Callable[[Rows], Rows]  # -> probabilities, (rows, labels)


def save_model(folder: pathlib.Path, layers: int) -> str:
    """Write a model of RoBERTa base's shape with random weights; each word of WORDS is one token."""
    torch.manual_seed(SEED)
    config = transformers.RobertaConfig(
        vocab_size=VOCABULARY,
        num_hidden_layers=layers,
        max_position_embeddings=514,
        type_vocab_size=1,
        id2label=dict(enumerate(LABELS)),
        label2id={label: at for at, label in enumerate(LABELS)},
    )
    network = transformers.RobertaForSequenceClassification(config)
    network.classifier.out_proj.weight.data *= 20  # so that texts differ
    network.save_pretrained(folder)
    words = {word: at for at, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(models.WordLevel(words, unk_token="<unk>"))  # noqa: S106 - no password
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    named = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=made, model_max_length=512, **named).save_pretrained(folder)
    return str(folder)


def rows_of(n: int, tokens: int) -> Rows:
    """Return rows of ids, special ones included."""
    ids = np.random.default_rng(SEED).integers(5, VOCABULARY, (n, tokens))
    ids[:, 0], ids[:, -1] = 0, 2
    return ids


def texts_of(rows: Rows) -> list[str]:
    """Return the texts that are tokenised to these rows."""
    return [" ".join(WORDS[number] for number in row[1:-1]) for row in rows]


def engine_for(folder: str, quantize: str) -> BatchingEngine:
    """Return the engine as a worker runs it, started."""
    found = make_engine(make_backend(Spec(model=folder, detector="bench", quantize=quantize, dtype="float32")), **SILENT)
    found.start()
    return found


def by_engine(engine: BatchingEngine) -> Judge:
    """Judge by the engine, from text."""

    def judge(rows: Rows) -> Rows:
        return np.array([answer.scores for answer in engine.submit(texts_of(rows)).result().answers])

    return judge


def in_batches(call: Callable[[Rows], Rows]) -> Judge:
    """Judge by a peer, which returns logits, a batch at a time."""

    def judge(rows: Rows) -> Rows:
        step = max(1, TOGETHER // rows.shape[1])
        logits = np.concatenate([call(rows[at : at + step]) for at in range(0, len(rows), step)])
        wide = np.exp(logits - logits.max(-1, keepdims=True))
        return wide / wide.sum(-1, keepdims=True)

    return judge


def by_transformers(folder: str) -> Judge:
    """Judge by transformers' own pass in fp32, on all cores."""
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def call(rows: Rows) -> Rows:
        with torch.inference_mode():
            ids = torch.from_numpy(rows)
            return network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.numpy()

    return in_batches(call)


def by_onnx(folder: str, threads: int) -> dict[str, Judge]:
    """Judge by ONNX Runtime: exported by torch, all graph optimisations; int8 by its dynamic quantisation, per channel."""
    import onnxruntime as ort  # noqa: PLC0415 - a peer, which may be missing
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    ids = torch.randint(5, VOCABULARY, (2, 16))
    files = {name: str(pathlib.Path(folder) / f"{name}.onnx") for name in ("onnx-fp32", "onnx-int8")}
    axes = {0: torch.export.Dim("rows", min=1, max=1024), 1: torch.export.Dim("tokens", min=2, max=512)}
    torch.onnx.export(
        network,
        kwargs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
        f=files["onnx-fp32"],
        dynamo=True,
        external_data=False,
        verbose=False,
        dynamic_shapes={"input_ids": axes, "attention_mask": axes},
        input_names=["input_ids", "attention_mask"],
    )
    # Without VNNI its signed products overflow unless weights have seven bits, as its documentation says.
    is_vnni = torch.backends.cpu.get_cpu_capability() not in ("AVX2", "DEFAULT")
    quantize_dynamic(
        files["onnx-fp32"], files["onnx-int8"], weight_type=QuantType.QInt8, per_channel=True, reduce_range=not is_vnni
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as processor time is compared
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL

    def judge_of(file: str) -> Judge:
        session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return in_batches(lambda rows: session.run(None, {"input_ids": rows, "attention_mask": np.ones_like(rows)})[0])

    return {name: judge_of(file) for name, file in files.items()}


def measured(judges: dict[str, Judge], lengths: Sequence[int], tokens: int, turns: int) -> dict[str, Any]:
    """Return texts/s of each method for each length, and how far its scores are from transformers' in fp32."""
    out: dict[str, Any] = {name: {} for name in judges}
    for length in lengths:
        rows = rows_of(max(2, tokens // length), length)
        said = {name: judge(rows) for name, judge in judges.items()}  # warm from here on
        seconds: dict[str, list[float]] = {name: [] for name in judges}
        busy: dict[str, list[float]] = {name: [] for name in judges}
        for _ in range(turns):
            for name, judge in judges.items():
                started, worked = time.perf_counter(), time.process_time()
                judge(rows)
                seconds[name].append(time.perf_counter() - started)
                busy[name].append(time.process_time() - worked)
        exact = said["transformers"]
        for name in judges:
            out[name][length] = {
                "texts_s": round(len(rows) / statistics.median(seconds[name]), 3),
                "texts_cpu_s": round(len(rows) * torch.get_num_threads() / statistics.median(busy[name]), 3),
                "turns": [round(len(rows) / one, 3) for one in seconds[name]],
                "same_label": round(float((said[name].argmax(-1) == exact.argmax(-1)).mean()), 4),
                "largest_error": float(f"{np.abs(said[name] - exact).max():.2g}"),
                "error_of_spread": float(f"{np.sqrt(((said[name] - exact) ** 2).mean()) / exact.std(0).mean():.2g}"),
            }
            print(f"{length:>4} tokens  {name:<14} {out[name][length]}")
    return out


def open_loop(engine: BatchingEngine, length: int, rate: float, seconds: float) -> dict[str, float]:
    """Return latencies in ms of texts that arrive at random at `rate` a second, from their scheduled arrival on."""
    dice = random.Random(SEED)
    text = texts_of(rows_of(1, length))[0]
    took: list[float] = []
    left = threading.Semaphore(0)
    n = max(30, int(rate * seconds))
    at = time.perf_counter() + 0.1
    for _ in range(n):
        at += dice.expovariate(rate)
        time.sleep(max(0.0, at - time.perf_counter()))

        def note(_: object, due: float = at) -> None:
            took.append(time.perf_counter() - due)
            left.release()

        engine.submit([text], urgent=True).add_done_callback(note)
    for _ in range(n):
        left.acquire()
    took.sort()
    found = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    return {"rate": round(rate, 2), "n": n} | {name: round(1e3 * took[int(share * (n - 1))], 1) for name, share in found.items()}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=4096, help="of each measurement")
    parser.add_argument("--lengths", default="32,128,512")
    parser.add_argument("--seconds", type=float, default=40, help="of each open loop; 0: none")
    parser.add_argument("--loop-lengths", default="16,32,128")
    parser.add_argument("--layers", type=int, default=12)
    asked = parser.parse_args()
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as made:
        folder = save_model(pathlib.Path(made), asked.layers)
        engines = {f"engine-{name}": engine_for(folder, kind) for name, kind in (("fp32", "none"), ("int8", "int8"))}
        judges: dict[str, Judge] = {"transformers": by_transformers(folder)}
        try:
            judges |= by_onnx(folder, threads)
        except ImportError:
            print(PEERS)
        judges |= {name: by_engine(engine) for name, engine in engines.items()}
        lengths = sorted({int(n) for n in f"{asked.lengths},{asked.loop_lengths if asked.seconds else asked.lengths}".split(",")})
        found = measured(judges, lengths, asked.tokens, asked.turns)
        loops: dict[str, Any] = {name: {} for name in engines}
        for length in (int(n) for n in asked.loop_lengths.split(",") if asked.seconds):
            for name, engine in engines.items():
                rate = LOAD * found[name][length]["texts_s"]
                loops[name][length] = open_loop(engine, length, rate, asked.seconds)
                print(f"{length:>4} tokens  {name:<14} open loop, ms: {loops[name][length]}")
    print(json.dumps({"threads": threads, "cpu": torch.backends.cpu.get_cpu_capability(), "rates": found, "open_loop": loops}))


if __name__ == "__main__":
    main()
