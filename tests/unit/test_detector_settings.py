"""A detector's settings: the demo model for `ai-text` brings its own, and what is set otherwise stands."""

import pytest

from guardfleet.errors import ConfigurationError
from guardfleet.settings import load_settings
from guardfleet.settings.groups import EngineSettings
from worker.engine.model import model_files
from worker.engine.model.model_files import folder_of, name_of


def test_the_demo_for_ai_text_means_over_texts_that_are_long_enough() -> None:
    found = EngineSettings(detector="ai-text")
    assert (found.window_rule, found.min_tokens) == ("mean", 30)
    asked = EngineSettings(detector="ai-text", window_rule="share", min_tokens=0)
    assert (asked.window_rule, asked.min_tokens) == ("share", 0)
    for other in (EngineSettings(), EngineSettings(detector="ai-text", model="mine"), EngineSettings(detector="other")):
        assert (other.window_rule, other.min_tokens) == ("max", 0)


def test_an_engine_of_a_detector_has_the_settings_that_its_worker_has() -> None:
    guard = EngineSettings(device="cpu")
    for asked in ({"detector": "ai-text"}, {"detector": "ai-text", "model": "mine"}, {"detector": "other", "model": "mine"}):
        assert guard.judging_as(**asked) == EngineSettings(device="cpu", **asked)
    stands = EngineSettings(min_tokens=5).judging_as("ai-text")
    assert (stands.window_rule, stands.min_tokens) == ("mean", 5)


def test_a_detector_with_two_models_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDFLEET_DETECTORS", "ai-text=demo,topics=/models/a, ai-text=/models/b")
    with pytest.raises(ConfigurationError, match="ai-text stands here twice: a detector has one model"):
        load_settings()


def test_demo_means_the_detectors_own(monkeypatch: pytest.MonkeyPatch) -> None:
    there = model_files.PACKAGE / "models" / "demo"
    monkeypatch.setattr(model_files, "DEMO_FOLDERS", {**model_files.DEMO_FOLDERS, "ai-text": (there,)})
    assert folder_of("demo", "ai-text") == there
    assert name_of("demo", "ai-text") == "guardfleet-ai-text-demo"
    assert name_of("demo") == "guardfleet-demo"
    with pytest.raises(ConfigurationError, match="no demo model"):
        folder_of("demo", "other")
