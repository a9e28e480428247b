#!/usr/bin/env python3
"""Measure how long an urgent text takes while bulk runs, and what bulk loses by it; in turns, the last line as one JSON.

    python benchmarks/urgent_texts.py --model demo --texts ../shared/data/corpus.jsonl --rows 4000

Three kinds of turns: bulk alone in whole batches, bulk in batches as short as a worker's, and the same with urgent texts one by
one.
"""

import argparse
import json
import pathlib
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from worker.engine.bench.cli import texts_of
from worker.engine.engine import BatchingEngine
from worker.engine.factory import PATIENCE_S, make_backend
from worker.engine.interfaces import Backend
from worker.engine.spec import Spec

URGENT = "Is this text one that somebody waits for, and if so, for how long?"


def main() -> None:
    """Run the kinds in turns, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--batch-tokens", type=int, default=0)
    parser.add_argument("--texts", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--every-s", type=float, default=0.5)
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    backend = make_backend(Spec(model=args.model, dtype=args.dtype, batch_tokens=args.batch_tokens))
    texts = texts_of(args.texts, args.rows)
    turn(backend, texts[:200], None, None)  # compiles kernels
    kinds: dict[str, tuple[float | None, float | None]] = {
        "bulk alone": (None, None), "short batches": (PATIENCE_S, None), "with urgent texts": (PATIENCE_S, args.every_s)
    }  # fmt: skip
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    waits: list[float] = []
    for _ in range(args.turns):
        for kind, (patience_s, every_s) in kinds.items():
            rate, waited = turn(backend, texts, patience_s, every_s)
            rates[kind].append(rate)
            waits += waited
    medians = {kind: statistics.median(several) for kind, several in rates.items()}
    waits.sort()
    out: dict[str, Any] = {
        "model": args.model, "texts_s": {kind: round(rate, 2) for kind, rate in medians.items()},
        "of_bulk_alone": {kind: round(rate / medians["bulk alone"], 3) for kind, rate in medians.items()}, "urgent": len(waits),
        "urgent_p50_s": round(waits[len(waits) // 2], 3), "urgent_p99_s": round(waits[int(len(waits) * 0.99)], 3),
    }  # fmt: skip
    print(json.dumps(out))


def turn(backend: Backend, texts: Sequence[str], patience_s: float | None, every_s: float | None) -> tuple[float, list[float]]:
    """Return bulk texts per second, and the seconds from each urgent text's submit to its answer."""
    engine = BatchingEngine(backend, patience_s=patience_s)
    ended, waits = threading.Event(), list[float]()

    def ask() -> None:
        while every_s is not None and not ended.wait(every_s):
            asked = time.perf_counter()
            engine.submit([URGENT], urgent=True).result()
            waits.append(time.perf_counter() - asked)

    engine.start()
    asking = threading.Thread(target=ask)
    asking.start()
    started = time.perf_counter()
    for future in [engine.submit(texts[at : at + 256]) for at in range(0, len(texts), 256)]:
        future.result()
    seconds = time.perf_counter() - started
    ended.set()
    asking.join()
    engine.stop()
    return len(texts) / seconds, waits


if __name__ == "__main__":
    main()
