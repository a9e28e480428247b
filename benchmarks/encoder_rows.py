#!/usr/bin/env python3
"""Whether classifiers of five families say of real texts what transformers says: the largest error in fp32, and agreement in bf16.

    python -m benchmarks.encoder_rows FILE.jsonl [--rows 1000] [--hidden 64]

FILE has a `text` in each line. Models have random weights; each family's tokenizer is trained on the texts. The packed pass judges
the rows in random packings, transformers in fp32 those of one length together. A random head hardly tells texts apart, so its
outputs are scaled to differ by 1 among them before they become probabilities. Nothing of a text is printed. The last line of stdout
is one JSON.
"""

import argparse
import json
import pathlib
import random
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from worker.engine.encoders.packed import Ids, PackedPass

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("wordpiece", {}),
    "roberta": ("bytes", {"max_position_embeddings": 514, "type_vocab_size": 1}),
    "xlm-roberta": ("unigram", {"max_position_embeddings": 514, "type_vocab_size": 1}),
    "deberta-v2": (
        "unigram",
        {"relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True}
        | {"pos_att_type": "p2c|c2p", "position_biased_input": False},
    ),
    "modernbert": ("bytes", {"max_position_embeddings": 512, "local_attention": 128, "cls_token_id": 0, "sep_token_id": 2}),
}
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
VOCABULARY, LONGEST, TOGETHER, LABELS, SEED = 4000, 512, 2048, 3, 7


def tokenizer_of(kind: str, texts: Sequence[str]) -> Any:
    """Return a tokenizer of this kind, trained on the texts."""
    if kind == "wordpiece":
        made, trainer = Tokenizer(models.WordPiece(unk_token="<unk>")), trainers.WordPieceTrainer  # noqa: S106 - no password
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        options: dict[str, Any] = {}
    elif kind == "bytes":
        made, trainer, options = Tokenizer(models.BPE()), trainers.BpeTrainer, {}
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        made, trainer, options = Tokenizer(models.Unigram()), trainers.UnigramTrainer, {"unk_token": "<unk>"}
        made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator(texts, trainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False, **options))
    return made


def network_of(family: str, vocabulary: int, hidden: int) -> Any:
    """Return a network with larger matrices than transformers makes them, so that texts matter."""
    torch.manual_seed(SEED)
    config = transformers.AutoConfig.for_model(
        family,
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=4 * hidden,
        num_labels=LABELS,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        **FAMILIES[family][1],
    )
    made = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    for weight in made.parameters():
        weight.data = weight.data * 3 if weight.dim() > 1 else weight.data + 0.1 * torch.randn_like(weight)
    return made


def packings(rows: Sequence[Ids], dice: random.Random) -> list[list[int]]:
    """Return batches of rows drawn at random, of about so many tokens."""
    out: list[list[int]] = [[]]
    for i in dice.sample(range(len(rows)), len(rows)):
        if sum(len(rows[j]) for j in out[-1]) + len(rows[i]) > TOGETHER:
            out.append([])
        out[-1].append(i)
    return [batch for batch in out if batch]


def outputs(packed: PackedPass, rows: Sequence[Ids], dice: random.Random) -> torch.Tensor:
    """Return the head's outputs by the packed pass, (rows, labels)."""
    out = torch.empty(len(rows), LABELS)
    for batch in packings(rows, dice):
        out[batch] = packed.logits([rows[i] for i in batch])
    return out


@torch.inference_mode()
def compared(family: str, texts: Sequence[str], hidden: int) -> dict[str, Any]:
    """Return what differs for one family."""
    encoder = tokenizer_of(FAMILIES[family][0], texts)
    rows: list[Ids] = [(0, *found.ids[: LONGEST - 2], 2) for found in encoder.encode_batch(list(texts))]
    network = network_of(family, encoder.get_vocab_size(), hidden)
    exact = torch.empty(len(rows), LABELS)
    for length in {len(row) for row in rows}:
        some = [i for i, row in enumerate(rows) if len(row) == length]
        ids = torch.tensor([rows[i] for i in some])
        exact[some] = network(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    centre, spread = exact.mean(0), exact.std(0)
    dice = random.Random(SEED)
    several = [exact, outputs(PackedPass(network, torch.device("cpu")), rows, dice)]
    several.append(outputs(PackedPass(network.to(torch.bfloat16), torch.device("cpu")), rows, dice))
    exact, found, half = (((logits - centre) / spread).softmax(-1) for logits in several)
    return {
        "rows": len(rows),
        "tokens": sum(map(len, rows)),
        "largest_error_fp32": float(f"{float((found - exact).abs().max()):.2g}"),
        "same_label_bf16": round(float((half.argmax(-1) == exact.argmax(-1)).float().mean()), 4),
        "largest_error_bf16": float(f"{float((half - exact).abs().max()):.2g}"),
    }


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--hidden", type=int, default=64)
    asked = parser.parse_args()
    lines = asked.file.read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines[:: max(1, len(lines) // asked.rows)][: asked.rows]]
    found = {}
    for family in FAMILIES:
        found[family] = compared(family, [text for text in texts if text.strip()], asked.hidden)
        print(family, found[family])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
