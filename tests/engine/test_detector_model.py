"""What doctor says of the models of detectors: as which they would judge, and in the sentences of loading why they would not."""

import itertools
import json
import pathlib
from typing import Any

import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from guardfleet.cli.doctor import model
from guardfleet.cli.doctor.examination import looked
from guardfleet.cli.doctor.findings import Finding, Pitfall, Status
from guardfleet.errors import ConfigurationError
from guardfleet.settings import Settings
from guardfleet.settings.groups import EngineSettings
from tests.engine.test_hub import CLOSED, NAME, at, cached
from tests.services.classifiers import save_classifier
from worker.engine.detector_model import detector_model
from worker.engine.factory import make_backend
from worker.engine.spec import Spec

MODELS = pathlib.Path(__file__).parents[2] / "models"
DEMO, POLICY_DEMO = MODELS / "demo", MODELS / "policy-demo"


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A classifier of a test's own, to spoil."""
    return pathlib.Path(save_classifier(tmp_path / "tiny", "bert"))


def found(detectors: str = "", **engine: Any) -> dict[str, Finding]:
    """The findings by name, of the checks whose conditions are met."""
    out: dict[str, Finding] = {}
    settings = Settings(detectors=tuple(detectors.split()), engine=EngineSettings(device="cpu", dtype="float32", **engine))
    for check in itertools.chain(*model.checks(settings, within_s=600.0)):
        if all(name in out and out[name].status is not Status.FAILED for name in check.after):
            out[check.name] = looked(check)
    return out


def spoil(folder: pathlib.Path, **changed: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def test_it_says_how_a_classifier_judges(folder: pathlib.Path) -> None:
    seen = found(model=str(folder), detector="odd", window_rule="share", min_tokens=5)
    assert {name for name in seen if name != "device"} == {"model path", "model"}
    assert seen["model"].status is Status.OK
    assert seen["model"].said == (
        "tiny, a classifier, judges as odd, with the labels safe, odd, bad; safe finds nothing; "
        "windows of a long text become one by 'share'; fewer than 5 tokens are too short"
    )


def test_it_says_how_a_model_judges_that_takes_policies() -> None:
    seen = found(model=str(POLICY_DEMO), detector="policy")
    assert seen["model"].said.startswith(
        "policy-demo, of the family dynaguard, judges as policy, with the labels PASS, FAIL; PASS "
    )
    wrong = found(model=str(POLICY_DEMO), detector="policy", neutral_label="x")["model"]
    assert (wrong.status, "has no label 'x'" in wrong.said) == (Status.FAILED, True)


def test_each_detector_that_is_named_is_looked_at_beside_the_guard(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    seen = found(f"ai-text=demo odd={folder} policy={POLICY_DEMO} guarded={DEMO} gone={tmp_path / 'gone'}")
    assert seen["model"].said.startswith("guardfleet-demo, ")
    assert seen["detector ai-text"].said == (
        "guardfleet-ai-text-demo, a classifier, judges as ai-text, with the labels human, generated; human finds nothing; "
        "windows of a long text become one by 'mean'; fewer than 30 tokens are too short"
    )
    assert [seen[f"detector {name}"].status for name in ("odd", "policy")] == [Status.OK, Status.OK]
    assert "become one by 'max'" in seen["detector odd"].said
    for name, said in (("guarded", "gives severities and no labels"), ("gone", "does not exist")):
        wrong = seen[f"detector {name}"]
        assert (wrong.status, wrong.pitfall) == (Status.FAILED, Pitfall.MODEL_PATH)
        assert said in wrong.said
        assert f"GUARDFLEET_DETECTORS={name}=" in (wrong.fix or "")


def test_a_model_that_gives_labels_is_no_guard(folder: pathlib.Path) -> None:
    assert "gives PASS, FAIL, no severities" in found(model=str(POLICY_DEMO))["model"].said
    assert "is a classifier, not a guard" in found(model=str(folder))["model path"].said


def cut_off(folder: pathlib.Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


SPOILT = {
    "a type that is not served": lambda folder: spoil(folder, model_type="distilbert"),
    "fewer layers": lambda folder: spoil(folder, num_hidden_layers=2),
    "more layers": lambda folder: spoil(folder, num_hidden_layers=4),
    "other sizes": lambda folder: spoil(folder, intermediate_size=65),
    "a small vocabulary": lambda folder: spoil(folder, vocab_size=100),
    "no positions": lambda folder: spoil(folder, max_position_embeddings=2),
    "quantized": lambda folder: spoil(folder, quantization_config={"quant_method": "gptq"}),
    "no names of labels": lambda folder: spoil(folder, id2label={"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}, label2id={}),
    "another number of labels": lambda folder: spoil(folder, id2label={"0": "safe", "1": "bad"}, label2id={"safe": 0, "bad": 1}),
    "a file that is cut off": cut_off,
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_loading_refuses_is_refused_in_a_sentence(what: str, folder: pathlib.Path) -> None:
    SPOILT[what](folder)
    asked = Spec(model=str(folder), detector="odd")
    with pytest.raises(ConfigurationError) as refused:
        make_backend(asked)
    with pytest.raises(ConfigurationError) as foreseen:
        detector_model(asked)
    assert "\n" not in str(foreseen.value)
    if what in ("a type that is not served", "fewer layers", "more layers", "quantized", "no names of labels"):
        assert str(foreseen.value) == str(refused.value)


def test_weights_that_an_older_library_named_are_left_to_loading(folder: pathlib.Path) -> None:
    path = folder / "model.safetensors"
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
        for name, weight in load_file(path).items()
    }
    assert any(name.endswith("gamma") for name in renamed)
    save_file(renamed, path, {"format": "pt"})
    assert make_backend(Spec(model=str(folder), detector="odd")).model.labels == ("safe", "odd", "bad")
    assert detector_model(Spec(model=str(folder), detector="odd")).is_here


@pytest.mark.parametrize("kept", [True, False])
def test_a_copy_in_the_hub_s_cache_must_be_whole_if_the_hub_is_away(
    folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    if not kept:
        (folder / "model.safetensors").unlink()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    at(monkeypatch, CLOSED)
    cached(tmp_path / "hub", folder)
    seen = found(model=NAME, detector="odd")["model"]
    if kept:
        assert seen.said.startswith(f"{NAME}, a classifier, judges as odd, ")
    else:
        assert "is in the hub's cache only partly, and the hub cannot be reached" in seen.said
    assert seen.status is (Status.OK if kept else Status.FAILED)
