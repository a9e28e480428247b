"""Models that load and answer, but say nothing of a text: without words, with numbers that are none, with a wrong head."""

import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from guardfleet.errors import ConfigurationError
from tests.services.classifiers import KINDS, opened, save_classifier, tokenizer_of
from worker.engine.encoders import stack
from worker.engine.encoders.classifier import inspected
from worker.engine.model.inspection import find, require_loadable, tokenizer_for
from worker.engine.model.loading import load
from worker.engine.model.vocabulary import require_reading, require_vocabulary
from worker.engine.spec import Spec

NAN = float("nan")
DEMO = pathlib.Path(__file__).parents[2] / "models" / "demo"


@pytest.fixture
def classifier(tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(save_classifier(tmp_path / "classifier", "bert"))


@pytest.fixture
def guard(tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(DEMO, tmp_path / "guard"))


def changed(folder: pathlib.Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    stored = load_file(folder / "model.safetensors")
    change(stored)
    save_file(stored, folder / "model.safetensors", {"format": "pt"})


def without_words(folder: pathlib.Path) -> None:
    for file in [*folder.glob("tokenizer*"), *folder.glob("vocab*"), *folder.glob("merges*")]:
        file.unlink()


def test_a_classifier_without_a_tokenizer_is_refused_at_load_and_by_doctor(classifier: pathlib.Path) -> None:
    without_words(classifier)
    assert len(transformers.AutoTokenizer.from_pretrained(classifier)) < 10, "the library makes one up"
    for act in (lambda: opened(model=str(classifier)), lambda: inspected(Spec(model=str(classifier), detector="odd"))):
        with pytest.raises(ConfigurationError, match=r"has no tokenizer \(tokenizer.json\)"):
            act()


def test_a_guard_without_a_tokenizer_is_refused_at_load_and_by_doctor(guard: pathlib.Path) -> None:
    found = find(str(guard))
    tokenizer = tokenizer_for(found)
    without_words(guard)
    with pytest.raises(ConfigurationError, match=r"has no tokenizer \(tokenizer.json\)"):
        load(str(guard))
    with pytest.raises(ConfigurationError, match=r"has no tokenizer \(tokenizer.json\)"):
        require_loadable(found, tokenizer)


def test_a_tokenizer_that_knows_no_word_is_refused(classifier: pathlib.Path, tmp_path: pathlib.Path) -> None:
    without_words(classifier)
    made_up = transformers.AutoTokenizer.from_pretrained(classifier)
    made_up.save_pretrained(classifier)
    for act in (lambda: opened(model=str(classifier)), lambda: inspected(Spec(model=str(classifier), detector="odd"))):
        with pytest.raises(ConfigurationError, match="its tokenizer has 5 entries, but its weights "):
            act()
    with pytest.raises(ConfigurationError, match="knows almost no word of plain texts in 11 languages"):
        require_reading("x", made_up, 5)
    with pytest.raises(ConfigurationError, match="has no tokenizer"):
        require_vocabulary("x", tmp_path)


@pytest.mark.parametrize("kind", sorted(set(KINDS.values())))
def test_tokenizers_of_few_words_and_with_room_for_more_are_taken(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    require_reading("x", tokenizer, int(1.5 * len(tokenizer)))
    with pytest.raises(ConfigurationError, match="is another model's"):
        require_reading("x", tokenizer, 3 * len(tokenizer))


@pytest.mark.parametrize(
    ("weight", "at", "value"),
    [
        ("classifier.bias", (1,), NAN),
        ("bert.pooler.dense.weight", (3, 4), NAN),
        ("bert.embeddings.word_embeddings.weight", (123,), NAN),
        ("bert.embeddings.position_embeddings.weight", (500, 5), float("-inf")),
    ],
)
def test_a_classifiers_weight_that_holds_no_number_is_refused_by_name(
    weight: str, at: tuple[int, ...], value: float, classifier: pathlib.Path
) -> None:
    changed(classifier, lambda stored: stored[weight].__setitem__(at, value))
    with pytest.raises(ConfigurationError, match=rf"its weight {weight} holds numbers that are not finite"):
        opened(model=str(classifier))


@pytest.mark.parametrize("weight", ["model.norm.weight", "model.embed_tokens.weight"])
def test_a_guards_weight_that_holds_no_number_is_refused_by_name(weight: str, guard: pathlib.Path) -> None:
    changed(guard, lambda stored: stored[weight].view(-1)[-1:].fill_(NAN))
    with pytest.raises(ConfigurationError, match=rf"its weight {weight} holds numbers that are not finite"):
        load(str(guard))


def test_weights_that_could_run_code_are_not_read(classifier: pathlib.Path, guard: pathlib.Path) -> None:
    for folder, act in ((classifier, lambda: opened(model=str(classifier))), (guard, lambda: load(str(guard)))):
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(ConfigurationError, match=r"has no weights \(\*.safetensors\)"):
            act()


def test_a_head_that_disagrees_is_not_used(
    classifier: pathlib.Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real: Any = stack.PackedStack.head
    monkeypatch.setattr(stack.PackedStack, "head", lambda self, pooled: real(self, pooled).roll(1, -1))
    assert opened(model=str(classifier)).padded
    assert "the packed pass's head is off by" in caplog.text


def test_a_model_that_pads_with_its_first_token_is_told_why_it_is_slower(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert opened(model=save_classifier(tmp_path / "odd", "roberta", pad_token_id=0)).padded
    assert "pad_token_id in its config.json is the token that begins each text" in caplog.text
