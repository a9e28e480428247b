#!/usr/bin/env python3
"""Train a demo from scratch: a tiny Qwen3 that follows Qwen3Guard's answer grammar, or one that judges by a policy in its prompt.

Deterministic for one machine and torch build. `--family guard`: about 15 minutes on 2 cores; reads labelled rows from --data (see
that folder's README for sources and licences). `--family policy`: under 5 minutes on one core; makes up its rows (`policies.py`).
Both write tokenizer, configuration, weights and held-out figures.
A row belongs to the held-out tenth when the first byte of the SHA-256 of its id, or of its text, is below 26.
"""

import argparse
import math
import pathlib
import random
import re
import time

import torch
from policy_training import make_policy
from tiny import ANSWER_END, HERE, batches, config_of, train_tokenizer, write
from transformers import Qwen2Tokenizer, Qwen3ForCausalLM

from examples import Example, load, prompts, responses

VOCAB_SIZE = 4096
MAX_TRAIN_TOKENS = 640  # longer prompts are cropped in the text, so that one batch never dominates a step
BATCH_TOKENS = 12_288


def encode(tokenizer: Qwen2Tokenizer, example: Example, rng: random.Random) -> tuple[list[int], list[int]]:
    """Return prompt ids and answer ids; a long conversation loses characters of its longest turn."""
    messages = [{"role": role, "content": content} for role, content in example.messages]
    cap = MAX_TRAIN_TOKENS if rng.random() < 0.97 else 4 * MAX_TRAIN_TOKENS
    while True:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) <= cap:
            return ids, tokenizer(example.answer + ANSWER_END, add_special_tokens=False)["input_ids"]
        longest = max(messages, key=lambda message: len(message["content"]))
        longest["content"] = longest["content"][: max(8, int(len(longest["content"]) * cap / len(ids) * 0.95))]


def loss_of(model: Qwen3ForCausalLM, batch: list[tuple[list[int], list[int]]]) -> torch.Tensor:
    """Return mean cross-entropy over the answer tokens; right padding needs no mask under causal attention."""
    longest = max(len(p) + len(a) for p, a in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    where, targets = [], []
    for i, (prompt_ids, answer_ids) in enumerate(batch):
        ids[i, : len(prompt_ids) + len(answer_ids)] = torch.tensor(prompt_ids + answer_ids)
        where += [i * longest + len(prompt_ids) - 1 + k for k in range(len(answer_ids))]
        targets += answer_ids
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)[where]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden), torch.tensor(targets))


def train(
    model: Qwen3ForCausalLM, rows: list[tuple[list[int], list[int]]], epochs: int, rng: random.Random, minutes: float
) -> None:
    """Train with AdamW, warm-up and cosine decay over `epochs`; stop the schedule early only after `minutes`."""
    tokens = sum(len(p) for p, _ in rows) / len(rows)
    print(f"{len(rows)} rows, mean {tokens:.0f} tokens, {model.num_parameters():,} parameters", flush=True)
    schedule = [batch for _ in range(epochs) for batch in batches(rows, rng, BATCH_TOKENS)]
    decay = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], lr=0.0, betas=(0.9, 0.98)
    )
    start = time.monotonic()
    for step, batch in enumerate(schedule):
        rate = 2e-3 * min((step + 1) / 60, 0.5 * (1 + math.cos(math.pi * step / len(schedule))) + 0.02)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}/{len(schedule)} loss {loss.item():.4f} {time.monotonic() - start:.0f} s", flush=True)
        if time.monotonic() - start > 60 * minutes:
            print(f"stopped at step {step}: {minutes} minutes are over", flush=True)
            return


@torch.inference_mode()
def evaluate(model: Qwen3ForCausalLM, tokenizer: Qwen2Tokenizer, examples: list[Example]) -> dict[str, float]:
    """Return held-out figures of greedy answers: share in the grammar, F1 of unsafe (strict and loose), refusal accuracy."""
    grammar = re.compile(r"Safety: (Safe|Unsafe|Controversial)\nCategories: ([^\n]+)(?:\nRefusal: (Yes|No))?")
    found: list[tuple[Example, re.Match[str] | None]] = []
    order = sorted(examples, key=lambda e: sum(len(c) for _, c in e.messages))
    for at in range(0, len(order), 32):
        group = order[at : at + 32]
        texts = [tokenizer.apply_chat_template([{"role": r, "content": c} for r, c in e.messages], tokenize=False) for e in group]
        ids = tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
        out = model.generate(**ids, max_new_tokens=40, do_sample=False)[:, ids["input_ids"].shape[1] :]
        found += [
            (e, grammar.fullmatch(a)) for e, a in zip(group, tokenizer.batch_decode(out, skip_special_tokens=True), strict=True)
        ]
    parsed = [(e, m) for e, m in found if m and (m[3] is not None) == (e.refusal is not None)]
    figures = {"rows": len(found), "grammar": len(parsed) / len(found)}
    for mode, hits in (("strict", ("Unsafe", "Controversial")), ("loose", ("Unsafe",))):
        tp = sum(e.severity in hits and m[1] in hits for e, m in parsed)
        fp = sum(e.severity not in hits and m[1] in hits for e, m in parsed)
        fn = sum(e.severity in hits and m[1] not in hits for e, m in parsed)
        share = sum(e.severity in hits for e, _ in parsed) / len(parsed)
        figures |= {
            f"f1_{mode}": 2 * tp / (2 * tp + fp + fn),
            f"f1_{mode}_always_unsafe": 2 * share / (1 + share),
            f"f1_{mode}_coin": share / (share + 0.5),
        }
    refusals = [(e, m) for e, m in parsed if e.refusal]
    figures["refusal_accuracy"] = sum(e.refusal == m[3] for e, m in refusals) / max(1, len(refusals))
    return {name: round(value, 4) for name, value in figures.items()}


def main() -> None:
    """Train, evaluate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=("guard", "policy"), default="guard")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--minutes", type=float)
    args = parser.parse_args()
    torch.manual_seed(7)
    if args.family == "policy":
        make_policy(args.out or HERE / "policy-demo")
    else:
        make_guard(args.data, args.out or HERE / "demo", args.epochs or 4, args.minutes or 18.0)


def make_guard(data: pathlib.Path, out: pathlib.Path, epochs: int, minutes: float) -> None:
    """Make the model that answers as Qwen3Guard does."""
    rng = random.Random(7)
    prompt_examples = list(prompts(data, rng))
    examples = prompt_examples + list(responses(data, prompt_examples, rng))
    template = (HERE / "demo" / "chat_template.jinja").read_text()
    tokenizer = train_tokenizer((row["text"] for row in load(data / "corpus.jsonl")[::2]), template, VOCAB_SIZE)
    rows = [encode(tokenizer, e, rng) for e in examples if not e.held_out]
    model = Qwen3ForCausalLM(config_of(tokenizer, positions=8192))
    train(model, rows, epochs, rng, minutes)
    write(model, tokenizer, out, lambda model: evaluate(model, tokenizer, [e for e in examples if e.held_out]))


if __name__ == "__main__":
    main()
