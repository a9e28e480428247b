"""Which classifiers are served: labels that can be mapped, files that are whole; the rest is refused in one sentence."""

import json
import pathlib
from typing import Any

import pytest
import transformers

from guardfleet.errors import ConfigurationError
from tests.services.classifiers import EXACT, alone, opened, save_classifier
from worker.engine.encoders.labels import labels_of
from worker.engine.factory import make_backend
from worker.engine.interfaces import Answer
from worker.engine.prompting.windows import Policy
from worker.engine.spec import Spec
from worker.engine.verification.reference import SENTENCES


@pytest.fixture
def copy(tmp_path: pathlib.Path) -> str:
    """A model of a test's own, to spoil."""
    return save_classifier(tmp_path / "spoiled", "bert")


def spoil(folder: str, **changed: Any) -> str:
    path = pathlib.Path(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    return folder


def test_labels_that_are_found_apart_have_no_neutral_one(tmp_path: pathlib.Path) -> None:
    folder = save_classifier(tmp_path / "apart", "roberta", ("toxic", "rude"), problem_type="multi_label_classification")
    backend = opened(model=folder)
    assert (backend.model.labels, backend.model.neutral) == (("toxic", "rude"), None)
    rows: list[Any] = list(backend.prepare([SENTENCES[0]]))
    network = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    (answer,) = backend.run(rows)
    assert isinstance(answer, Answer)
    assert answer.scores == pytest.approx(alone(network, [rows[0].ids]).sigmoid()[0].tolist(), abs=EXACT)


@pytest.mark.parametrize(
    ("id2label", "problem", "neutral", "said"),
    [
        ({0: "LABEL_0", 1: "LABEL_1"}, None, "", "does not name its labels .*GUARDFLEET_ENGINE__NEUTRAL_LABEL"),
        ({0: "good", 1: "good"}, None, "", "two labels of one name"),
        ({0: "safe", 1: ""}, None, "", "does not name its labels"),
        ({0: "safe", 2: "bad"}, None, "", "head has 2 outputs, but id2label"),
        ({0: "safe", 1: "bad", 2: "odd"}, None, "", "head has 2 outputs, but id2label"),
        ({0: "left", 1: "right"}, None, "", "none of its labels .*GUARDFLEET_ENGINE__NEUTRAL_LABEL"),
        ({0: "Safe", 1: "human"}, None, "", "several of its labels"),
        ({0: "left", 1: "right"}, None, "middle", "has no label 'middle', but left, right"),
        ({0: "a", 1: "b"}, "multi_label_classification", "a", "unset GUARDFLEET_ENGINE__NEUTRAL_LABEL"),
        ({0: "safe", 1: "error"}, None, "", r"is what guardfleet calls an outcome \(error\)"),
        ({0: "Too-Short", 1: "safe"}, None, "", r"is what guardfleet calls an outcome \(Too-Short\)"),
        ({0: "safe", 1: "UNLABELLED"}, "multi_label_classification", "", "is what guardfleet calls an outcome"),
        ({0: "safe", 1: "labelled"}, None, "", "is what guardfleet calls an outcome"),
        ({0: "safe", 1: "a\0b"}, None, "", r"characters that cannot be printed \('a\\x00b'\)"),
        ({0: "safe", 1: "a\u202eb"}, None, "", "characters that cannot be printed"),
        ({0: "safe", 1: "x" * 201}, None, "", "longer than 200 characters"),
        ({0: "safe", 1: "bad"}, "nonsense", "", "problem_type .* is nonsense, which says nothing"),
        ({0: "safe", 1: "bad"}, "regression", "", "a number instead of labels"),
    ],
)
def test_labels_that_cannot_be_mapped_are_refused(id2label: dict[int, str], problem: str | None, neutral: str, said: str) -> None:
    config = transformers.BertConfig()
    config.problem_type = problem
    config.id2label, config.label2id = id2label, {}
    with pytest.raises(ConfigurationError, match=f"^model 'x'.*{said}"):
        labels_of("x", config, 2, neutral)


def test_labels_that_are_named_in_two_orders_are_refused() -> None:
    config = transformers.BertConfig()
    config.id2label, config.label2id = {0: "safe", 1: "bad"}, {"bad": 0, "safe": 1}
    with pytest.raises(ConfigurationError, match="disagree on safe, bad"):
        labels_of("x", config, 2)


@pytest.mark.parametrize("name", ["Safe", "non-toxic", "NOT_TOXIC", "Human", "No Injection", "benign"])
def test_a_neutral_label_is_known_by_its_name(name: str) -> None:
    config = transformers.BertConfig()
    config.id2label, config.label2id = {0: "bad", 1: name}, {}
    assert labels_of("x", config, 2).neutral == name
    config.id2label = {0: "bad", 1: "fine"}
    assert labels_of("x", config, 2, "FINE").neutral == "fine"


def test_what_changes_a_detection_changes_its_policy(bert: str) -> None:
    specs: list[dict[str, Any]] = [{}, {"window_rule": "mean"}, {"min_tokens": 5}, {"policy": Policy(overlap=20)}]
    specs += [{"neutral_label": "odd"}]
    assert len({opened(model=bert, **spec).model.policy for spec in specs}) == len(specs)


def test_a_guard_named_as_a_detector_is_refused_and_the_other_way_round(bert: str) -> None:
    guard = str(pathlib.Path(__file__).parents[2] / "models" / "demo")
    with pytest.raises(ConfigurationError, match=r"gives severities and no labels: leave GUARDFLEET_ENGINE__DETECTOR at guard"):
        make_backend(Spec(model=guard, detector="ai-text"))
    with pytest.raises(ConfigurationError, match=r"is a classifier, not a guard: set GUARDFLEET_ENGINE__DETECTOR"):
        make_backend(Spec(model=bert))
    with pytest.raises(ConfigurationError, match="detector 'other' has no demo model"):
        make_backend(Spec(detector="other"))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_type": "distilbert"}, "classifiers of bert, roberta"),
        ({"vocab_size": 900}, "cannot be loaded"),
        ({"num_hidden_layers": 4}, "lacks weights"),
        ({"num_hidden_layers": 2}, "holds weights that a classifier"),
        ({"max_position_embeddings": 2}, "cannot be loaded"),
        ({"quantization_config": {"quant_method": "gptq"}}, "stored quantized"),
    ],
)
def test_an_odd_folder_is_refused_in_one_sentence(changed: dict[str, Any], said: str, copy: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as refused:
        opened(model=spoil(copy, **changed))
    assert "\n" not in str(refused.value)


def test_the_model_is_what_detections_are_tied_to(bert: str) -> None:
    model = opened(model=bert).model
    assert model.name == "tiny"
    assert len(model.revision) == 64
