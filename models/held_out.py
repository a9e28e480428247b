"""What the demo detector of generated text does on texts that it was not fitted to, in figures and as its README."""

import json
import pathlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from passages import Passage, crop, flat

from guardfleet.sampling.thresholds import auroc, counted, cut_at, needed, reaching, threshold_at

RATES = (0.01, 0.05)
LENGTHS = (150, 300, 600)  # characters of crops
RESAMPLED = 1000
SHORT = 30  # tokens; where the demo answers that a text is too short
SAMPLE = 500  # rows of each other source
# Sources of the mixed corpus whose texts people wrote, with their languages; those of models, of both, and translations are left out.
WRITTEN = ("civil_toxic", "clinc150", "banking77", "gsm8k", "surge_toxicity", "germeval_de", "cold_zh", "mhc")
Score = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class Texts:
    """Texts as columns: their scores, labels and passages."""

    scores: np.ndarray
    generated: np.ndarray
    passages: np.ndarray

    def where(self, mask: np.ndarray) -> "Texts":
        """Return some of them."""
        return Texts(self.scores[mask], self.generated[mask], self.passages[mask])


def figures(rows: Sequence[Passage], score: Score) -> dict[str, Any]:
    """Compute the figures of held-out rows: whole, by length of crops, by source, by generator."""
    whole = texts_of(rows, [row.text for row in rows], score)
    out: dict[str, Any] = {"all, en": described(whole)}
    rng = random.Random(11)
    for length in LENGTHS:
        cut = [(row, piece) for row in rows if (piece := crop(row.text, row.own_from, length, rng))]
        out[f"crops of {length} characters"] = described(texts_of([row for row, _ in cut], [piece for _, piece in cut], score))
    for source in sorted({row.source for row in rows}):
        out[f"source {source}"] = described(whole.where(np.array([row.source == source for row in rows])))
    return out


def generators(rows: Sequence[Passage], score: Score, thresholds: dict[str, float | None]) -> dict[str, Any]:
    """Return, by generator, the share of its whole texts that each threshold flags."""
    names = sorted({row.generator for row in rows if row.generator})
    out = {}
    for name in names:
        found = score([row.text for row in rows if row.generator == name])
        out[name] = {"texts": len(found), **_flagged(found, thresholds)}
    return out


def human_elsewhere(corpus: pathlib.Path, score: Score, length_of: Callable[[str], int], thresholds: dict) -> dict[str, Any]:
    """Return the share of human texts of other kinds, by source and language, that each threshold flags."""
    rng = random.Random(12)
    groups: dict[str, list[str]] = {}
    with corpus.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        if row["labels"]["src"] in WRITTEN:
            groups.setdefault(f"{row['labels']['src']} ({row['lang']})", []).append(flat(row["text"]))
    out = {}
    for name, texts in sorted(groups.items()):
        drawn = rng.sample(texts, min(SAMPLE, len(texts)))
        long = [text for text in drawn if length_of(text) >= SHORT]
        out[name] = {"texts": len(drawn), "too_short": len(drawn) - len(long), **_flagged(score(long), thresholds)}
    return out


def texts_of(rows: Sequence[Passage], texts: list[str], score: Score) -> Texts:
    """Score the texts of these rows."""
    names = {name: at for at, name in enumerate(sorted({row.opening for row in rows}))}
    return Texts(score(texts), np.array([row.is_generated for row in rows]), np.array([names[row.opening] for row in rows]))


def described(texts: Texts) -> dict[str, Any]:
    """Return AUROC and, for each rate, threshold and true-positive rate, with 95 % intervals over passages drawn again."""
    positives, negatives = texts.scores[texts.generated], texts.scores[~texts.generated]
    rng = np.random.default_rng(13)
    drawn = [_again(texts, rng) for _ in range(RESAMPLED)]
    out: dict[str, Any] = {"generated": len(positives), "human": len(negatives), "passages": len(np.unique(texts.passages))}
    out["auroc"] = _with_interval(auroc(positives, negatives), [auroc(*pair) for pair in drawn])
    for rate in RATES:
        found = _at(rate, positives, negatives)
        out[f"tpr_at_{rate:g}"] = (
            None if len(negatives) < needed(rate) else _with_interval(found, [_at(rate, *pair) for pair in drawn])
        )
        out[f"threshold_{rate:g}"] = threshold_at(negatives, rate)
    return out


def _at(rate: float, positives: np.ndarray, negatives: np.ndarray) -> float | None:
    found = cut_at(threshold_at(negatives, rate), rate, positives, negatives).true_positive_rate
    return found and found.value


def _again(texts: Texts, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw as many passages with replacement: the rows of one passage are not independent."""
    n = int(texts.passages.max()) + 1
    times = np.bincount(rng.choice(np.unique(texts.passages), len(np.unique(texts.passages))), minlength=n)[texts.passages]
    return (
        np.repeat(texts.scores, np.where(texts.generated, times, 0)),
        np.repeat(texts.scores, np.where(texts.generated, 0, times)),
    )


def _with_interval(value: float | None, drawn: list[float | None]) -> list[float] | None:
    known = [one for one in drawn if one is not None]
    return None if value is None else [round(float(one), 3) for one in (value, *np.quantile(known, (0.025, 0.975)))]


def _flagged(scores: np.ndarray, thresholds: dict[str, float | None]) -> dict[str, Any]:
    out = {}
    for rate, threshold in thresholds.items():
        share = None if threshold is None else counted(reaching(scores, threshold), len(scores))
        out[f"flagged_at_{rate}"] = share and [round(one, 3) for one in share]
    return out


def readme(found: dict[str, Any]) -> str:
    """Return the README with the figures in it."""
    held = [
        f"| {name} | {one['human']} | {one['generated']} | {_said(one['auroc'])} | {_said(one['tpr_at_0.01'])} | {_said(one['tpr_at_0.05'])} |"
        for name, one in found["held_out"].items()
    ]
    by = [
        f"| {name} | {one['texts']} | {_said(one['flagged_at_0.01'])} | {_said(one['flagged_at_0.05'])} |"
        for name, one in found["generators"].items()
    ]
    others = [
        f"| {name} | {one['texts']} | {one['too_short']} | {_said(one['flagged_at_0.01'], 'all too short')} | {_said(one['flagged_at_0.05'], 'all too short')} |"
        for name, one in found["human_elsewhere"].items()
    ]
    page = (pathlib.Path(__file__).parent / "ai_text_readme.txt").read_text()
    tables = {"held_out": held, "generators": by, "human_elsewhere": others}
    for name, value in {**{key: "\n".join(lines) for key, lines in tables.items()}, **found["model"]}.items():
        page = page.replace("{" + name + "}", f"{value:,}" if isinstance(value, int) else str(value))
    return page


def _said(share: list[float] | None, nothing: str = "too few") -> str:
    return nothing if share is None else f"{share[0]:.3f} [{share[1]:.3f}, {share[2]:.3f}]"
