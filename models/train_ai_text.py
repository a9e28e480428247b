#!/usr/bin/env python3
"""Fit the demo detector of generated text: a bag of word pieces, written as a small BERT.

Deterministic for one machine and torch build; about a minute on one core. Reads the pairs of human and generated texts of --data (see
that folder's README for sources and licences), and writes tokenizer, configuration, weights, held-out figures and the README with them.
Passages are kept whole: none has rows on both sides of a split. Vocabulary and ridge are chosen by cross-validation on the passages
that are not held out; the held-out ones are looked at once, at the end.
"""

import argparse
import hashlib
import json
import pathlib
import random
import time

import numpy as np
import torch
from bag import Bag, as_bert, calibrated, fitted, scores, shares, tokenizer_of
from held_out import figures, generators, human_elsewhere, readme
from passages import Passage, crop, passages
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from guardfleet.sampling.thresholds import auroc

FOLDS = 4
VOCABULARIES = (300, 600, 1200, 4000)
RIDGES = (1e-3, 1e-2)
CROPS = (600, 300, 150)  # characters, beside the whole texts


def pieces_of(rows: list[Passage], rng: random.Random) -> list[tuple[Passage, str]]:
    """Return each text whole and in crops."""
    cut = [(row, crop(row.text, row.own_from, length, rng)) for length in CROPS for row in rows]
    return [(row, row.text) for row in rows] + [(row, text) for row, text in cut if text]


def fold_of(row: Passage) -> int:
    """Return the fold of a row, the same for all of its passage."""
    return hashlib.sha256(b"fold" + row.opening.encode()).digest()[0] % FOLDS


def out_of_fold(found: np.ndarray, labels: np.ndarray, folds: np.ndarray, ridge: float) -> np.ndarray:
    """Return each text's mean weight by weights that were fitted to the other folds."""
    out = np.zeros(len(labels))
    for fold in range(FOLDS):
        out[folds == fold] = found[folds == fold] @ fitted(found[folds != fold], labels[folds != fold], ridge)
    return out


def main() -> None:
    """Choose, fit, write, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "ai-text-demo")
    args = parser.parse_args()
    torch.manual_seed(7)
    started = time.monotonic()
    rows = passages(args.data / "ai_detect.jsonl")
    known, held_out = ([row for row in rows if row.is_held_out is side] for side in (False, True))
    pieces = pieces_of(known, random.Random(7))
    labels, folds = np.array([row.is_generated for row, _ in pieces]), np.array([fold_of(row) for row, _ in pieces])
    tried: dict[tuple[int, bool, float], float] = {}
    for size in VOCABULARIES:
        for lower in (False, True):
            tokenizer = tokenizer_of([row.text for row in known], size, lower=lower)
            found = shares(tokenizer, [text for _, text in pieces])
            for ridge in RIDGES:
                means = out_of_fold(found, labels, folds, ridge)
                tried[size, lower, ridge] = auroc(means[labels], means[~labels]) or 0
                print(
                    f"{size} pieces, lower={lower}, ridge {ridge:g}: cross-validated AUROC {tried[size, lower, ridge]:.4f}",
                    flush=True,
                )
    size, lower, ridge = max(tried, key=lambda one: tried[one])
    tokenizer = tokenizer_of([row.text for row in known], size, lower=lower)
    found = shares(tokenizer, [text for _, text in pieces])
    slope, intercept = calibrated(out_of_fold(found, labels, folds, ridge), labels)
    weights = fitted(found, labels, ridge)
    as_bert(Bag(weights, slope, intercept), tokenizer, float((found @ weights).std())).save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    measure(args.out, args.data, held_out, {
        "pieces": len(tokenizer), "lower": lower, "ridge": ridge, "cross_validated_auroc": round(tried[size, lower, ridge], 4),
        "rows": len(known), "passages": len({row.opening for row in known}),
    })  # fmt: skip
    print(f"{time.monotonic() - started:.0f} s")


def measure(folder: pathlib.Path, data: pathlib.Path, held_out: list[Passage], chosen: dict[str, object]) -> None:
    """Load what was written, as anybody does, and write its figures and README."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def score(texts: list[str]) -> np.ndarray:
        return scores(model, tokenizer, texts)

    found = {"model": {**chosen, "parameters": model.num_parameters()}, "held_out": figures(held_out, score)}
    thresholds = {rate: found["held_out"]["all, en"][f"threshold_{rate}"] for rate in ("0.01", "0.05")}
    found["generators"] = generators(held_out, score, thresholds)
    found["human_elsewhere"] = human_elsewhere(
        data / "corpus.jsonl", score, lambda text: len(tokenizer(text, truncation=True)["input_ids"]) - 2, thresholds
    )
    found["model"] |= {"threshold_1": thresholds["0.01"], "threshold_5": thresholds["0.05"]}
    print(json.dumps(found))
    (folder / "figures.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "README.md").write_text(readme(found))


if __name__ == "__main__":
    main()
