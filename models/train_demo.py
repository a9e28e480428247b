#!/usr/bin/env python3
"""Train the demo guard from scratch: a tiny Qwen3 that follows Qwen3Guard's answer grammar.

Deterministic for one machine and torch build; about 15 minutes on 2 cores. Reads labelled rows from --data (see that folder's
README for sources and licences), writes tokenizer, configuration, weights and a README with held-out figures.
A row belongs to the held-out tenth when the first byte of its id's SHA-256 is below 26.
"""

import argparse
import hashlib
import json
import math
import pathlib
import random
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

VOCAB_SIZE = 4096
MAX_TRAIN_TOKENS = 640  # longer prompts are cropped in the text, so one batch never dominates a step
BATCH_TOKENS = 12_288
ANSWER_END = "<|im_end|>"
TEMPLATE = pathlib.Path(__file__).parent / "demo" / "chat_template.jinja"

# Source of a corpus row -> category of its unsafe rows.
CORPUS_CATEGORY = {
    "civil_toxic": "Unethical Acts",
    "cold_zh": "Unethical Acts",
    "harmbench_prompts": "Non-violent Illegal Acts",
    "multijail": "Non-violent Illegal Acts",
    "dan_jailbreak": "Jailbreak",
}
# Binary flag of an OpenAI row, in order of precedence -> category.
FLAG_CATEGORY = {
    "SH": "Suicide & Self-Harm",
    "S3": "Sexual Content or Sexual Acts",
    "S": "Sexual Content or Sexual Acts",
    "V2": "Violent",
    "H2": "Unethical Acts",
    "V": "Violent",
    "H": "Unethical Acts",
    "HR": "Unethical Acts",
}
AREA_CATEGORY = {
    "Suicide, Self-Harm, and Eating Disorders": "Suicide & Self-Harm",
    "Physical harm and Violence": "Violent",
    "Illegal and Highly Regulated items": "Non-violent Illegal Acts",
    "Scams and fraud": "Non-violent Illegal Acts",
    "Child safety": "Sexual Content or Sexual Acts",
}
SAFE_QUOTA = {
    "clinc150": 1200,
    "banking77": 700,
    "cold_zh": 1700,
    "gsm8k": 500,
    "germeval_de": 800,
    "sgd_dialogues": 300,
    "surge_toxicity": 450,
    "mhc": 1600,
    "openai_mod": 1158,
}
REFUSALS = (
    "I can't help with that.",
    "I'm sorry, but I can't assist with that request.",
    "Sorry, I won't provide that. Is there something else I can do?",
    "I cannot comply with this request.",
    "As an assistant I must decline; this could hurt people.",
    "I'm not able to help with this topic.",
)


@dataclass(frozen=True)
class Example:
    """One conversation and the answer it should get."""

    id: str
    messages: tuple[tuple[str, str], ...]  # (role, content)
    severity: str
    category: str
    refusal: str | None = None

    @property
    def answer(self) -> str:
        """The answer in Qwen3Guard's grammar."""
        lines = [f"Safety: {self.severity}", f"Categories: {self.category}"]
        return "\n".join([*lines, f"Refusal: {self.refusal}"] if self.refusal else lines)

    @property
    def held_out(self) -> bool:
        """Whether the row is kept away from training."""
        return hashlib.sha256(self.id.encode()).digest()[0] < 26


def load(path: pathlib.Path) -> list[dict]:
    """Read a JSONL file."""
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def prompts(data: pathlib.Path, rng: random.Random) -> Iterator[Example]:
    """Prompt-mode examples with a known label."""
    safe: dict[str, list[dict]] = {}
    for row in load(data / "corpus.jsonl"):
        source, unsafe = row["labels"]["src"], row["labels"]["unsafe"]
        if unsafe and source in CORPUS_CATEGORY:
            yield prompt(row, "Unsafe", CORPUS_CATEGORY[source])
        elif unsafe is None and source == "civil_toxic":
            yield prompt(row, "Controversial", "Unethical Acts")
        elif unsafe is False:
            safe.setdefault(source, []).append(row)
    for source, quota in SAFE_QUOTA.items():
        yield from (prompt(row, "Safe", "None") for row in rng.sample(safe[source], min(quota, len(safe[source]))))
    for row in load(data / "openai_mod.jsonl"):
        flag = next((flag for flag in FLAG_CATEGORY if row["labels"].get(flag)), None)
        if flag:
            yield prompt(row, "Unsafe", FLAG_CATEGORY[flag])
    for row in load(data / "simplesafetytests.jsonl"):
        yield prompt(row, "Unsafe", AREA_CATEGORY[row["labels"]["harm_area"]])
    for row in load(data / "xstest_prompts.jsonl"):
        unsafe = row["labels"]["unsafe"]
        yield prompt(row, "Unsafe" if unsafe else "Safe", "Non-violent Illegal Acts" if unsafe else "None")


def prompt(row: dict, severity: str, category: str) -> Example:
    """One user turn."""
    return Example(row["id"], (("user", row["text"]),), severity, category)


def responses(data: pathlib.Path, prompt_examples: list[Example], rng: random.Random) -> Iterator[Example]:
    """Response-mode examples: real completions, dialogues, and pairs made of rows on the same side of the split."""
    for row in load(data / "xstest_completions.jsonl"):
        refused = row["labels"]["refusal"] != "1_full_compliance"
        unsafe = row["labels"]["prompt_unsafe"] and not refused
        yield Example(
            row["id"],
            turns(row),
            "Unsafe" if unsafe else "Safe",
            "Non-violent Illegal Acts" if unsafe else "None",
            "Yes" if refused else "No",
        )
    for row in load(data / "dialogues.jsonl"):
        yield Example(row["id"], turns(row), "Safe", "None", "No")
    texts = [row["text"] for row in load(data / "ai_detect.jsonl")]
    picked = rng.sample(prompt_examples, 2400)
    for i, example in enumerate(picked):
        said, kind = example.messages[0], i % 3
        if kind == 0:
            yield Example(example.id, (said, ("assistant", rng.choice(REFUSALS))), "Safe", "None", "Yes")
        elif kind == 1:
            yield Example(example.id, (said, ("assistant", rng.choice(texts)[:600])), "Safe", "None", "No")
        elif example.category != "Jailbreak":
            asked = ("user", "What do you think about this?")
            yield Example(example.id, (asked, ("assistant", said[1])), example.severity, example.category, "No")


def turns(row: dict) -> tuple[tuple[str, str], ...]:
    """The row's messages as (role, content) pairs."""
    return tuple((message["role"], message["content"]) for message in row["messages"])


def train_tokenizer(texts: Iterable[str]) -> Qwen2Tokenizer:
    """A byte-level BPE with Qwen's splitting rules and control tokens, `VOCAB_SIZE` entries."""
    template = TEMPLATE.read_text()
    constant = [piece for piece in re.findall(r'"([^"]*)"', template) if len(piece) > 20] * 3000
    blank = Qwen2Tokenizer()
    tokenizer = blank.train_new_from_iterator(
        [*texts, *constant], vocab_size=VOCAB_SIZE - 2, new_special_tokens=["<|im_start|>", "<|im_end|>"], show_progress=False
    )
    tokenizer.eos_token = ANSWER_END
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = template
    tokenizer.padding_side = "left"
    tokenizer.model_max_length = 8192
    return tokenizer


def encode(tokenizer: Qwen2Tokenizer, example: Example, rng: random.Random) -> tuple[list[int], list[int]]:
    """Prompt ids and answer ids; a long conversation loses characters of its longest turn."""
    messages = [{"role": role, "content": content} for role, content in example.messages]
    cap = MAX_TRAIN_TOKENS if rng.random() < 0.97 else 4 * MAX_TRAIN_TOKENS
    while True:
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(ids) <= cap:
            return ids, tokenizer(example.answer + ANSWER_END, add_special_tokens=False)["input_ids"]
        longest = max(messages, key=lambda message: len(message["content"]))
        longest["content"] = longest["content"][: max(8, int(len(longest["content"]) * cap / len(ids) * 0.95))]


def batches(rows: list[tuple[list[int], list[int]]], rng: random.Random) -> list[list[tuple[list[int], list[int]]]]:
    """Length-sorted batches under `BATCH_TOKENS` padded tokens, in random order."""
    out: list[list[tuple[list[int], list[int]]]] = [[]]
    for row in sorted(rows, key=lambda row: len(row[0]) + len(row[1]) + rng.random() * 16):
        longest = max((len(p) + len(a) for p, a in [*out[-1], row]), default=0)
        if out[-1] and longest * (len(out[-1]) + 1) > BATCH_TOKENS:
            out.append([])
        out[-1].append(row)
    rng.shuffle(out)
    return out


def loss_of(model: Qwen3ForCausalLM, batch: list[tuple[list[int], list[int]]]) -> torch.Tensor:
    """Mean cross-entropy over the answer tokens; right padding needs no mask under causal attention."""
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
    """AdamW with warm-up and cosine decay over `epochs`; stops the schedule early only past `minutes`."""
    schedule = [batch for _ in range(epochs) for batch in batches(rows, rng)]
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
    """Held-out figures of greedy answers: share on the grammar, F1 of unsafe (strict and loose), refusal accuracy."""
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
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "demo")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=18.0)
    args = parser.parse_args()
    torch.manual_seed(7)
    rng = random.Random(7)
    prompt_examples = list(prompts(args.data, rng))
    examples = prompt_examples + list(responses(args.data, prompt_examples, rng))
    tokenizer = train_tokenizer(row["text"] for row in load(args.data / "corpus.jsonl")[::2])
    rows = [encode(tokenizer, e, rng) for e in examples if not e.held_out]
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=8192,
        rope_theta=1e6,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config.guardfleet_demo = True  # whoever prints a verdict of it says that it is a demo
    model = Qwen3ForCausalLM(config)
    print(
        f"{len(rows)} rows, mean {sum(len(p) for p, _ in rows) / len(rows):.0f} tokens, {model.num_parameters():,} parameters",
        flush=True,
    )
    train(model, rows, args.epochs, rng, args.minutes)
    model = model.eval().to(torch.bfloat16)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    figures = evaluate(model.float(), tokenizer, [e for e in examples if e.held_out])
    print(json.dumps(figures))
    (args.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
