"""Train and evaluate the demo that judges by a policy."""

import math
import pathlib
import random
import time

import policies
import torch
from tiny import ANSWER_END, HERE, batches, config_of, train_tokenizer, write
from transformers import Qwen2Tokenizer, Qwen3ForCausalLM

VOCAB_SIZE = 1024
STAGES = (500, 900, 1100)  # steps of each stage of the curriculum
BATCH_TOKENS, HELD_OUT = 1536, 600


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


def policy_batches(
    tokenizer: Qwen2Tokenizer, examples: list[policies.Example], stage: int, rng: random.Random
) -> list[list[tuple[list[int], list[int]]]]:
    """Return the batches of a stage; before the last one, prompts have no instructions and answers no reasons, to save time."""
    if stage == len(STAGES) - 1:
        return batches([encode_policy(tokenizer, e) for e in examples], rng, BATCH_TOKENS)
    frame = "<rules>\n{}\n</rules>\n<transcript>\n'User': {}\n</transcript><|im_end|>\n<answer>\n"
    asked = [tokenizer(frame.format(e.policy, e.text), add_special_tokens=False)["input_ids"] for e in examples]
    answers = [tokenizer(e.label, add_special_tokens=False)["input_ids"] for e in examples]
    return batches(list(zip(asked, answers, strict=True)), rng, BATCH_TOKENS)


def policy_loss(model: Qwen3ForCausalLM, batch: list[tuple[list[int], list[int]]]) -> torch.Tensor:
    """Return cross-entropy over the answers, of which the deciding token counts as much as the reason."""
    longest = max(len(p) + len(a) for p, a in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    where, targets, weights = [], [], []
    for i, (prompt_ids, answer_ids) in enumerate(batch):
        ids[i, : len(prompt_ids) + len(answer_ids)] = torch.tensor(prompt_ids + answer_ids)
        where += [i * longest + len(prompt_ids) - 1 + k for k in range(len(answer_ids))]
        targets += answer_ids
        weights += [1.0, *[1 / len(answer_ids)] * (len(answer_ids) - 1)]
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)[where]
    losses = torch.nn.functional.cross_entropy(model.lm_head(hidden), torch.tensor(targets), reduction="none")
    return (losses * torch.tensor(weights)).sum() / sum(weights)


def train_policy(model: Qwen3ForCausalLM, stages: list[list[list[tuple[list[int], list[int]]]]]) -> None:
    """Train through the stages with AdamW, a constant rate, and cosine decay in the last stage."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.02)
    start = time.process_time()
    for stage, (schedule, steps) in enumerate(zip(stages, STAGES, strict=True)):
        for step in range(steps):
            decay = 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.02 if stage == len(stages) - 1 else 1.0
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * min(decay, (step + 1) / 60 if stage == 0 else 1.0)
            loss = policy_loss(model, schedule[step % len(schedule)])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if step % 100 == 0:
                print(
                    f"stage {stage} step {step}/{steps} loss {loss.item():.4f} {time.process_time() - start:.0f} CPU s", flush=True
                )


def make_policy(out: pathlib.Path) -> None:
    """Make the model that judges by a policy."""
    rng = random.Random(7)
    rows = (12_000, 20_000, 16_000)
    seen = [[e for e in policies.examples(n, rng, stage=stage) if stage < 2 or not e.held_out] for stage, n in enumerate(rows)]
    texts = (f"{e.policy}\n{e.text}\n{e.answer}" for e in seen[2][:8000])
    tokenizer = train_tokenizer(texts, (HERE / "policy-demo" / "chat_template.jinja").read_text(), VOCAB_SIZE)
    config = config_of(tokenizer, positions=2048)
    config.hidden_size, config.intermediate_size, config.tie_word_embeddings = 64, 192, False
    model = Qwen3ForCausalLM(config)
    train_policy(model, [policy_batches(tokenizer, some, stage, rng) for stage, some in enumerate(seen)])
    held_out = {
        "unseen texts": policies.RULES,
        "unseen texts under rules in an unseen wording": (policies.UNSEEN_RULE,),
    }
    asked = {
        name: [e for e in policies.examples(20 * HELD_OUT, rng, wordings=wordings) if e.held_out][:HELD_OUT]
        for name, wordings in held_out.items()
    }
    write(model, tokenizer, out, lambda model: {name: evaluate_policy(model, tokenizer, some) for name, some in asked.items()})
