"""The policy demo end to end: loaded from its folder as a worker does it, and judged by policies that decide."""

import pathlib
import subprocess
import sys

import pytest

from guardfleet.errors import ConfigurationError
from worker.engine.engine import BatchingEngine
from worker.engine.factory import make_backend
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.spec import Spec

ROOT = pathlib.Path(__file__).parents[2]
DEMO = str(ROOT / "models" / "policy-demo")
FORBIDS = {"gardening": "the lawn", "football": "the goalkeeper", "chess": "a checkmate", "coffee": "the barista"}


def test_the_same_texts_are_judged_by_the_policy_that_comes_with_them_and_reasons_are_the_models_words() -> None:
    engine = BatchingEngine(make_backend(Spec(model=DEMO, device="cpu", dtype="float32", detector="policy", reasons=True)))
    texts = [f"Let us talk about {topic}. Can you tell me more about {word}?" for topic, word in FORBIDS.items()]
    futures = [engine.submit(texts, policy=PromptPolicy.of(f"1. No text about {topic}.")) for topic in FORBIDS]
    engine.start()
    found = [future.result(60).answers for future in futures]
    engine.stop()
    assert (engine.model.labels, engine.model.neutral, engine.model.is_demo) == (("PASS", "FAIL"), "PASS", True)
    right = [(answer.raw == "FAIL") is (i == j) for i, answers in enumerate(found) for j, answer in enumerate(answers)]
    assert sum(right) >= 14  # of 16; the demo errs on some texts, as its README says
    for answer in (answer for answers in found for answer in answers):
        assert answer.failure is None
        assert (answer.reason is not None) is (answer.raw == "FAIL")


def test_it_is_a_detector_and_the_guards_demo_is_none() -> None:
    with pytest.raises(ConfigurationError, match="name it as a detector"):
        make_backend(Spec(model=DEMO, device="cpu"))
    with pytest.raises(ConfigurationError, match="gives severities and no labels"):
        make_backend(Spec(model=str(ROOT / "models" / "demo"), device="cpu", detector="policy"))


def test_the_example_prints_a_line_for_each_text_and_policy() -> None:
    run = subprocess.run(
        [sys.executable, "examples/custom_policy.py"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    said = [line for line in run.stdout.splitlines() if line.startswith(("PASS", "FAIL"))]
    assert len(said) == 24
    assert {line[:4] for line in said} == {"PASS", "FAIL"}
    assert all(("the model's words" in line) is line.startswith("FAIL") for line in said)
