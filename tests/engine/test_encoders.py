"""Classifiers: equal to transformers' own in fp32 whatever shares the batch, with labels, windows and texts as they are."""

import pathlib
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import transformers

from tests.services.classifiers import EXACT, FAMILIES, alone, judged, network_of, opened, save_classifier
from worker.engine.encoders import attention, stack
from worker.engine.encoders.families import why_not
from worker.engine.encoders.packed import PackedPass, PaddedPass
from worker.engine.interfaces import Answer
from worker.engine.verification.reference import SENTENCES

CPU = torch.device("cpu")
MOST_ROUNDED = 0.05  # of probabilities in eight bits: rounding, not a defect
LENGTHS = (1, 2, 3, 3, 7, 16, 33, 34, 65, 66, 100, 300, 300, 510)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in FAMILIES},
    "bert-relu": ("bert", {"hidden_act": "relu"}),
    "deberta-own-positions": ("deberta-v2", {"share_att_key": False, "position_biased_input": True, "type_vocab_size": 2}),
    "deberta-one-way": ("deberta-v2", {"position_buckets": -1, "pos_att_type": "c2p"}),
    "deberta-the-other-way": ("deberta-v2", {"pos_att_type": "p2c"}),
    "deberta-absolute": ("deberta-v2", {"relative_attention": False, "pos_att_type": None, "position_biased_input": True}),
    "modernbert-mean": ("modernbert", {"classifier_pooling": "mean", "norm_bias": True, "attention_bias": True, "mlp_bias": True}),
}


@pytest.fixture(scope="session", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_classifier(tmp_path_factory.mktemp("models") / request.param, request.param)


def rows_of(lengths: Sequence[int], vocabulary: int, pad: int) -> list[tuple[int, ...]]:
    dice = random.Random(3)
    some = [number for number in range(vocabulary) if number != pad]
    return [tuple(dice.choices(some, k=n)) for n in lengths]


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_packed_pass_is_transformers_whatever_shares_the_batch(variant: str) -> None:
    family, config = VARIANTS[variant]
    network = network_of(family, ("a", "b", "c"), **config)
    assert why_not(network) is None
    rows = rows_of(LENGTHS, network.config.vocab_size, network.config.pad_token_id)
    expected = alone(network, rows)
    assert float(expected.std(0).min()) > 100 * EXACT, "texts must differ by more than an error would show"
    packed, dice = PackedPass(network, CPU), random.Random(5)
    for n in (1, 2, 5, len(rows)):
        some = dice.sample(range(len(rows)), n)
        found = packed.logits([rows[i] for i in some])
        assert float((found - expected[some]).abs().max()) < EXACT
    assert float((PaddedPass(network, CPU, network.config.pad_token_id).logits(rows) - expected).abs().max()) < EXACT


def test_a_folder_becomes_an_engine_whose_scores_are_the_models(folder: str) -> None:
    backend = opened(model=folder, streams=2)
    assert not backend.padded
    texts = [" ".join(SENTENCES[: 1 + i % 7]) for i in range(20)]
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text)["input_ids"] for text in texts]
    expected = alone(network, ids).softmax(-1)
    for answer, one, row in zip(judged(backend, texts), expected.tolist(), ids, strict=True):
        assert answer.scores == pytest.approx(one, abs=EXACT)
        assert answer.input_tokens == len(row)
        assert not answer.is_too_short
    model = backend.model
    assert (model.detector, model.labels, model.neutral, model.is_demo) == ("test", ("safe", "odd", "bad"), "safe", False)


def test_eight_bits_agree_and_are_another_revision(folder: str) -> None:
    exact, rounded = (opened(model=folder, quantize=kind) for kind in ("none", "int8"))
    assert rounded.model.revision == f"int8:{exact.model.revision}"
    assert not rounded.padded
    rows: list[Any] = list(exact.prepare(SENTENCES))
    pairs = [(a.scores, b.scores) for a, b in zip(exact.run(rows), rounded.run(rows), strict=True)]
    assert all(a == pytest.approx(b, abs=MOST_ROUNDED) for a, b in pairs)
    assert any(a != b for a, b in pairs)


def narrower(real: Any) -> Any:
    return lambda queries, keys, ahead, window, device: real(queries, keys, ahead, window - 1, device)


def unrotated(real: Any) -> Any:
    return lambda x, rotation, places: x


def mirrored(real: Any) -> Any:
    return lambda product, n, *, is_key: real(product.flip(-1), n, is_key=is_key)


def leaking(real: Any) -> Any:
    return lambda self, layer, q, k, v, rows, **how: real(self, layer, q, k.roll(1, 0), v.roll(1, 0), rows, **how)


def misplaced(real: Any) -> Any:
    def made(self: Any, lengths: Sequence[int], device: Any) -> None:
        real(self, lengths, device)
        self.places = (self.places - 1).clamp(min=0)

    return made


BUGS: dict[str, tuple[str, Any, str, Callable[[Any], Any]]] = {
    "a local window is one too narrow": ("modernbert", attention, "near", narrower),
    "positions do not rotate": ("modernbert", stack, "_rotated", unrotated),
    "distances are of the other side": ("deberta-v2", attention, "_skewed", mirrored),
    "the neighbour's last token is seen": ("bert", attention.Attention, "__call__", leaking),
    "places are one off": ("roberta", attention.Rows, "__init__", misplaced),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_pass_that_disagrees_is_not_used_and_said(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    family, owner, attribute, planted = BUGS[name]
    folder = save_classifier(tmp_path / family, family)
    monkeypatch.setattr(owner, attribute, planted(getattr(owner, attribute)))
    backend = opened(model=folder)
    assert backend.padded
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["engine_fallback"]
    assert "off by" in caplog.text
    assert opened(model=folder, quantize="int8").padded, "eight bits hide nothing"
    monkeypatch.undo()
    rows: list[Any] = list(backend.prepare(SENTENCES[:3]))
    for mine, other in zip(backend.run(rows), opened(model=folder).run(rows), strict=True):
        assert isinstance(mine, Answer)
        assert isinstance(other, Answer)
        assert mine.scores == pytest.approx(other.scores, abs=EXACT)


def test_what_the_packed_pass_does_not_cover_is_left_to_transformers(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_classifier(tmp_path / "conv", "deberta-v2", conv_kernel_size=3)
    assert opened(model=folder).padded
    assert "because of convolutions" in caplog.text


def test_scores_that_are_no_numbers_fail_their_row(bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = opened(model=bert, streams=1)
    monkeypatch.setattr(backend, "_logits", lambda rows: torch.full((len(rows), 3), float("nan")))
    (answer,) = judged(backend, [SENTENCES[0]])
    assert answer.scores is None
    assert answer.failure is not None
    assert answer.failure.code == "engine_failed"
