"""The demo detector of generated text: its files are what its README says, and its data are divided by passage."""

import json
import pathlib
import sys

import numpy as np
import pytest

from guardfleet.sampling.thresholds import auroc, threshold_at

MODELS = pathlib.Path(__file__).parents[2] / "models"
FOLDER = MODELS / "ai-text-demo"
MOST_BYTES = 3_000_000


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training scripts' own modules, which are in no package."""
    monkeypatch.syspath_prepend(str(MODELS))
    for name in ("passages", "bag"):
        sys.modules.pop(name, None)


def test_it_is_small_and_says_that_it_is_a_demo_and_what_its_labels_are() -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["guardfleet_demo"] is True
    assert config["id2label"] == {"0": "human", "1": "generated"}
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MOST_BYTES


def test_its_readme_has_the_figures_that_were_measured() -> None:
    page, found = (FOLDER / "README.md").read_text(), json.loads((FOLDER / "figures.json").read_text())
    assert "{" not in page
    for name, one in found["held_out"].items():
        value, low, high = one["auroc"]
        assert f"| {name} | {one['human']} | {one['generated']} | {value:.3f} [{low:.3f}, {high:.3f}] |" in page
    for name, one in found["human_elsewhere"].items():
        assert f"| {name} | {one['texts']} | {one['too_short']} |" in page
    assert "not for use" in page


@pytest.mark.usefixtures("scripts")
def test_no_pair_and_no_passage_is_on_both_sides(shared: pathlib.Path) -> None:
    from passages import flat, grouped, passages  # type: ignore[import-not-found]

    path = shared / "data" / "ai_detect.jsonl"
    rows = passages(path)
    side = {row.text: row.is_held_out for row in rows}
    raw = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    sides: dict[str, set[bool]] = {}
    for row in raw:
        text = flat(row["text"])
        for key in ("pair " + row["labels"]["pair"], "opening " + text[:40]):
            sides.setdefault(key, set()).add(side[text])
    assert {len(found) for found in sides.values()} == {1}
    assert len(grouped(raw)) == 453
    assert 0.3 < np.mean([row.is_held_out for row in rows]) < 0.5


@pytest.mark.usefixtures("scripts")
def test_the_figures_are_those_of_the_files(shared: pathlib.Path) -> None:
    from bag import scores  # type: ignore[import-not-found]
    from passages import passages
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    held_out = [row for row in passages(shared / "data" / "ai_detect.jsonl") if row.is_held_out]
    model = AutoModelForSequenceClassification.from_pretrained(FOLDER).eval()
    found = scores(model, AutoTokenizer.from_pretrained(FOLDER), [row.text for row in held_out])
    generated = np.array([row.is_generated for row in held_out])
    told = json.loads((FOLDER / "figures.json").read_text())["held_out"]["all, en"]
    assert auroc(found[generated], found[~generated]) == pytest.approx(told["auroc"][0], abs=0.001)
    assert threshold_at(found[~generated], 0.05) == told["threshold_0.05"]


@pytest.mark.usefixtures("scripts")
def test_the_network_is_the_bag() -> None:
    import torch
    from bag import Bag, as_bert, scores, shares, tokenizer_of

    texts = ["a plain text of words", "words of another kind", "a a a", "another plain kind of plain text", "of of of of words"]
    tokenizer = tokenizer_of(texts, 60, lower=False)
    torch.manual_seed(1)
    weights = np.where(np.arange(len(tokenizer)) < 5, 0, np.random.default_rng(1).normal(size=len(tokenizer))).astype(np.float32)
    means = shares(tokenizer, texts) @ weights
    found = scores(as_bert(Bag(weights, 1.5, 0.2), tokenizer, float(means.std()) * 4), tokenizer, texts)
    assert (np.argsort(found) == np.argsort(means)).all()
    assert found == pytest.approx(1 / (1 + np.exp(-(1.5 * means + 0.2))), abs=0.02)
