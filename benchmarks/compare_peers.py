#!/usr/bin/env python3
"""Time the engine and its peers in turns on the same ids and weights; print medians and ratios, the last line as one JSON.

    python ../shared/peers/make_model.py /tmp/model --shape 0.6b
    python benchmarks/compare_peers.py /tmp/model --peers ../shared/peers --vllm-python /tmp/vllm/bin/python --rows 96

vLLM's CPU build and OpenVINO need environments of their own (see the peers' README); without `--vllm-python`, or
`--openvino-python` and `--openvino-model`, they are skipped. The engine runs in fp32 and, beside OpenVINO's int8, in int8. Answers
are scripted here and forced to eight tokens there, because random weights do not produce the grammar.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

TURN_LIMIT_S = 1800
OURS, OURS_IN_EIGHT_BITS = "guardfleet", "guardfleet int8"


def main() -> None:
    """Run the contenders in turns, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="folder written by make_model.py")
    parser.add_argument("--peers", type=pathlib.Path, required=True, help="folder of the peers' scripts")
    parser.add_argument("--vllm-python")
    parser.add_argument("--openvino-python")
    parser.add_argument("--openvino-model", help="folder that optimum-cli exported with --weight-format int8")
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--generate-rows", type=int, default=32, help="fewer rows for transformers, which is slow")
    parser.add_argument("--generate-batches", type=lambda value: [int(part) for part in value.split(",")], default=[8, 32])
    parser.add_argument("--budgets", default="2048")
    parser.add_argument("--turns", type=int, default=3)
    args = parser.parse_args()
    ours = f"-m worker.engine.bench.cli --scripted --turns 1 --json --rows {args.rows} --budgets {args.budgets}".split()
    files = ["--model", str(args.model), "--texts", str(args.model / "texts.json")]
    contenders: dict[str, list[str]] = {OURS: [sys.executable, *ours, *files, "--dtype", "float32"]}
    if args.vllm_python:
        contenders["vllm-cpu"] = [args.vllm_python, str(args.peers / "vllm_cpu.py"), str(args.model), str(args.rows)]
    if args.openvino_python and args.openvino_model:
        script = [str(args.peers / "openvino_int8.py"), args.openvino_model, str(args.model), str(args.rows)]
        contenders["openvino int8"] = [args.openvino_python, *script]
        contenders[OURS_IN_EIGHT_BITS] = [*contenders[OURS], "--quantize", "int8"]
    for batch in args.generate_batches:
        script = [sys.executable, str(args.peers / "hf_generate.py"), str(args.model), str(args.generate_rows), str(batch)]
        contenders[f"generate, sorted, batch {batch}"] = script
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    ceilings: list[float] = []
    shares: list[float] = []
    for turn in range(args.turns):
        for name, command in contenders.items():
            found = last_json(command)
            if "runs" in found:
                best = max(found["runs"], key=lambda run: run["texts_s"])
                found["texts_per_s"] = best["texts_s"]
                if name == OURS:
                    ceilings.append(best["ceiling_gflop_s"])
                    shares.append(best["of_ceiling"])
            rates[name].append(found["texts_per_s"])
            print(f"turn {turn + 1}: {name}: {found['texts_per_s']:.3f} texts/s", flush=True)
    medians = {name: statistics.median(several) for name, several in rates.items()}
    for name, rate in medians.items():
        times = ", ".join(f"{ours} is {medians[ours] / rate:.2f} x that" for ours in (OURS, OURS_IN_EIGHT_BITS) if ours in medians)
        print(f"{name}: {rate:.3f} texts/s, {times}")
    print(json.dumps({
        "model": args.model.name, "rows": args.rows, "turns": args.turns, "texts_s": medians,
        "ratios": {
            ours: {name: round(medians[ours] / rate, 3) for name, rate in medians.items()}
            for ours in (OURS, OURS_IN_EIGHT_BITS) if ours in medians
        },
        "ceiling_gflop_s": statistics.median(ceilings), "of_ceiling": statistics.median(shares), "all": rates,
    }))  # fmt: skip


def last_json(command: Sequence[str]) -> dict[str, Any]:
    """Return the JSON object in the last line that holds one. Raises SystemExit if the command fails."""
    environ = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=TURN_LIMIT_S, env=environ, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(f"{command[0]} ... failed with {done.returncode}:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


if __name__ == "__main__":
    main()
