#!/usr/bin/env python3
"""Train a demo from scratch: a tiny Qwen3 that follows Qwen3Guard's answer grammar, or one that judges by a policy in its prompt.

Deterministic for one machine and torch build. `--family guard`: about 15 minutes on 2 cores; reads labelled rows from --data (see
that folder's README for sources and licences). `--family policy`: under 5 minutes on one core; makes up its rows (`policies.py`).
Both write tokenizer, configuration, weights and held-out figures.
A row belongs to the held-out tenth when the first byte of the SHA-256 of its id, or of its text, is below 26.
"""

import argparse
import json
import math
import pathlib
import random
import re
import time
from collections.abc import Callable, Iterable
from typing import Any

import policies
import torch
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

from examples import Example, load, prompts, responses

HERE = pathlib.Path(__file__).parent
VOCAB_SIZE = {"guard": 4096, "policy": 1024}
POLICY_ROWS, POLICY_HELD_OUT = 24_000, 2000
MAX_TRAIN_TOKENS = 640  # longer prompts are cropped in the text, so that one batch never dominates a step
BATCH_TOKENS = {"guard": 12_288, "policy": 6144}
ANSWER_END = "<|im_end|>"


def train_tokenizer(texts: Iterable[str], template: str, size: int) -> Qwen2Tokenizer:
    """Train a byte-level BPE with Qwen's splitting rules and control tokens, `size` entries."""
    constant = [piece for piece in re.findall(r'"([^"]*)"', template) if len(piece) > 20] * 3000
    blank = Qwen2Tokenizer()
    tokenizer = blank.train_new_from_iterator(
        [*texts, *constant], vocab_size=size - 2, new_special_tokens=["<|im_start|>", "<|im_end|>"], show_progress=False
    )
    tokenizer.eos_token = ANSWER_END
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = template
    tokenizer.padding_side = "left"
    tokenizer.model_max_length = 8192
    return tokenizer


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


def batches(rows: list[tuple[list[int], list[int]]], rng: random.Random, size: int) -> list[list[tuple[list[int], list[int]]]]:
    """Return length-sorted batches under `size` padded tokens, in random order."""
    out: list[list[tuple[list[int], list[int]]]] = [[]]
    for row in sorted(rows, key=lambda row: len(row[0]) + len(row[1]) + rng.random() * 16):
        longest = max((len(p) + len(a) for p, a in [*out[-1], row]), default=0)
        if out[-1] and longest * (len(out[-1]) + 1) > size:
            out.append([])
        out[-1].append(row)
    rng.shuffle(out)
    return out


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
    model: Qwen3ForCausalLM, rows: list[tuple[list[int], list[int]]], epochs: int, rng: random.Random, minutes: float, size: int
) -> None:
    """Train with AdamW, warm-up and cosine decay over `epochs`; stop the schedule early only after `minutes`."""
    tokens = sum(len(p) for p, _ in rows) / len(rows)
    print(f"{len(rows)} rows, mean {tokens:.0f} tokens, {model.num_parameters():,} parameters", flush=True)
    schedule = [batch for _ in range(epochs) for batch in batches(rows, rng, size)]
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


def encode_policy(tokenizer: Qwen2Tokenizer, example: policies.Example) -> tuple[list[int], list[int]]:
    """Return prompt ids and answer ids."""
    ids = tokenizer(policy_prompt(tokenizer, example), add_special_tokens=False)["input_ids"]
    return ids, tokenizer(example.answer + ANSWER_END, add_special_tokens=False)["input_ids"]


def policy_prompt(tokenizer: Qwen2Tokenizer, example: policies.Example) -> str:
    return tokenizer.apply_chat_template([{"role": "user", "content": example.text}], tokenize=False, policy=example.policy)


@torch.inference_mode()
def evaluate_policy(model: Qwen3ForCausalLM, tokenizer: Qwen2Tokenizer, examples: list[policies.Example]) -> dict[str, float]:
    """Return held-out figures of the greedy label: share in the grammar, accuracy, and how often a reason names the right topic."""
    said = []
    for at in range(0, len(examples), 100):
        ids = tokenizer(
            [policy_prompt(tokenizer, e) for e in examples[at : at + 100]],
            padding=True,
            return_tensors="pt",
            add_special_tokens=False,
        )
        out = model.generate(**ids, max_new_tokens=40, do_sample=False)[:, ids["input_ids"].shape[1] :]
        said += tokenizer.batch_decode(out, skip_special_tokens=True)
    labels = [answer.partition("\n")[0] for answer in said]
    right = [label == e.label for label, e in zip(labels, examples, strict=True)]
    fails = [ok for ok, e in zip(right, examples, strict=True) if e.label == "FAIL"]
    figures = {
        "rows": len(examples),
        "grammar": sum(label in ("PASS", "FAIL") for label in labels) / len(labels),
        "accuracy": sum(right) / len(right),
        "accuracy_always_pass": 1 - len(fails) / len(right),
        "fail_found": sum(fails) / len(fails),
        "false_alarms": sum(not ok for ok, e in zip(right, examples, strict=True) if e.label == "PASS") / (len(right) - len(fails)),
        "reason_right": sum(e.answer == answer for e, answer in zip(examples, said, strict=True)) / len(said),
    }
    return {name: round(value, 4) for name, value in figures.items()}


def make_policy(out: pathlib.Path, epochs: int, minutes: float) -> None:
    """Make the model that judges by a policy."""
    rng = random.Random(7)
    examples = list(policies.examples(POLICY_ROWS, rng))
    seen = [e for e in examples if not e.held_out]
    texts = (f"{e.policy}\n{e.text}\n{e.answer}" for e in seen[:20_000])
    tokenizer = train_tokenizer(texts, (HERE / "policy-demo" / "chat_template.jinja").read_text(), VOCAB_SIZE["policy"])
    model = Qwen3ForCausalLM(config_of(tokenizer, positions=2048))
    train(model, [encode_policy(tokenizer, e) for e in seen], epochs, rng, minutes, BATCH_TOKENS["policy"])
    unseen_wording = policies.examples(POLICY_HELD_OUT, rng, wordings=(policies.UNSEEN_RULE,))
    held_out = {
        "unseen texts": [e for e in examples if e.held_out][:POLICY_HELD_OUT],
        "unseen texts and an unseen wording of the rules": [e for e in unseen_wording if e.held_out],
    }
    write(model, tokenizer, out, lambda model: {name: evaluate_policy(model, tokenizer, some) for name, some in held_out.items()})


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
        make_policy(args.out or HERE / "policy-demo", args.epochs or 1, args.minutes or 4.5)
    else:
        make_guard(args.data, args.out or HERE / "demo", args.epochs or 4, args.minutes or 18.0)


def make_guard(data: pathlib.Path, out: pathlib.Path, epochs: int, minutes: float) -> None:
    """Make the model that answers as Qwen3Guard does."""
    rng = random.Random(7)
    prompt_examples = list(prompts(data, rng))
    examples = prompt_examples + list(responses(data, prompt_examples, rng))
    template = (HERE / "demo" / "chat_template.jinja").read_text()
    tokenizer = train_tokenizer((row["text"] for row in load(data / "corpus.jsonl")[::2]), template, VOCAB_SIZE["guard"])
    rows = [encode(tokenizer, e, rng) for e in examples if not e.held_out]
    model = Qwen3ForCausalLM(config_of(tokenizer, positions=8192))
    train(model, rows, epochs, rng, minutes, BATCH_TOKENS["guard"])
    write(model, tokenizer, out, lambda model: evaluate(model, tokenizer, [e for e in examples if e.held_out]))


def config_of(tokenizer: Qwen2Tokenizer, *, positions: int) -> Qwen3Config:
    """Return the tiny network's configuration."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=positions,
        rope_theta=1e6,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config.guardfleet_demo = True  # whoever prints one of its verdicts says that it is a demo
    return config


def write(
    model: Qwen3ForCausalLM,
    tokenizer: Qwen2Tokenizer,
    out: pathlib.Path,
    evaluated: Callable[[Qwen3ForCausalLM], dict[str, Any]],
) -> None:
    """Write the model in 16 bits, and its figures, which are of these 16 bits."""
    model = model.eval().to(torch.bfloat16)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    figures = evaluated(model.float())
    print(json.dumps(figures))
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
