"""Time rows over many policies against rows over one, and the first text of a new policy against later ones.

    python benchmarks/prompt_policies.py --shape 0.6b --layers 4 --tokenizer FOLDER

Random weights of a published shape, cut to a few layers where the machine is small. Needs torch and transformers. Last line: JSON.
"""

import argparse
import json
import statistics
import time

from worker.engine.bench.scripted import SHAPES, random_policy_model
from worker.engine.decoding.policy_runner import PolicyBackend
from worker.engine.prompting.prompt_policy import PromptPolicy

TEXT = "Where does the night train to the coast leave, and is there a sleeping car in it? "
RULE = "{}. The agent must not promise a refund, a discount or a delivery before day {}.\n"


def policies(n: int, rules: int, salt: int) -> list[PromptPolicy]:
    """Return different policies of one length."""
    return [PromptPolicy.of("".join(RULE.format(at + 1, at + 100 * i + salt) for at in range(rules))) for i in range(n)]


def rows_of(backend: PolicyBackend, texts: int, several: list[PromptPolicy]) -> list:
    """Return rows of the same texts, dealt to the policies."""
    return [backend.prepare([f"{i} {TEXT * 3}"], None, several[i % len(several)])[0] for i in range(texts)]


def seconds(backend: PolicyBackend, rows: list) -> float:
    """Return the time of one pass."""
    began = time.perf_counter()
    backend.run(rows)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="0.6b")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokenizer", default="demo")
    parser.add_argument("--rules", type=int, default=20)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    loaded = random_policy_model(args.shape, args.tokenizer, args.device, args.dtype, args.layers)
    grammar = loaded.family.grammar
    assert grammar is not None  # noqa: S101 - it is a policy model's
    backend = PolicyBackend(loaded, grammar, budget_tokens=65_536, streams=1)
    backend.run(rows_of(backend, args.texts, policies(1, args.rules, 9000)))
    found: dict[str, float] = {}
    for n in (1, 4, 16):
        several = policies(n, args.rules, 1)
        backend.run(rows_of(backend, n, several))
        found[f"batch_{n}_policies_s"] = statistics.median(
            seconds(backend, rows_of(backend, args.texts, several)) for _ in range(args.repeats)
        )
    new = policies(args.repeats, args.rules, 5000)
    first, later = ([seconds(backend, rows_of(backend, 1, [policy])) for policy in new] for _ in range(2))
    found |= {"first_text_s": statistics.median(first), "later_text_s": statistics.median(later)}
    held = backend.policies.used(new[0]).held
    found |= {"prefix_tokens": len(held.ids), "prefix_mb": held.n_bytes / 1e6}
    whole = rows_of(backend, args.texts, policies(1, args.rules, 1))
    found["row_tokens"] = statistics.mean(row.n_tokens for row in whole)
    for name, value in found.items():
        print(f"{name:24} {value:.4g}")
    print(json.dumps({"shape": args.shape, "layers": args.layers, "texts": args.texts, **found}))


if __name__ == "__main__":
    main()
