"""What both demos share: a tokenizer, a tiny Qwen3, batches, and how a model is written."""

import json
import pathlib
import random
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3ForCausalLM

HERE = pathlib.Path(__file__).parent
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
