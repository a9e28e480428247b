"""Which models the packed engine judges: it does what their own generate does, or leaves them to it and reports so."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from guardfleet.domain.verdict import CATEGORY_CHOICES
from guardfleet.errors import ConfigurationError
from tests.services.packed import BUDGET, drive, generate
from worker.engine.decoding.logits import forks
from worker.engine.decoding.model_runner import PackedBackend
from worker.engine.decoding.padded import GenerateBackend
from worker.engine.factory import make_backend
from worker.engine.forward.network import why_not
from worker.engine.model.loading import load
from worker.engine.prompting.prompt import Content
from worker.engine.spec import Spec


def test_labels_and_categories_of_the_real_tokenizer_are_told_apart_by_one_token(real_tokenizer: Any) -> None:
    encode: Callable[[str], list[int]] = lambda text: real_tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    assert forks([f"Safety: {label}\nCategories:" for label in ("Safe", "Controversial", "Unsafe")], encode) == (
        (73037, 25),
        [22291, 2093, 73067],
    )
    prefix, first = forks([f"Safety: Safe\nCategories: {name}" for name in CATEGORY_CHOICES], encode)
    assert prefix == (73037, 25, 22291, 198, 20970, 25)
    assert first == [2240, 29455, 11581, 38667, 393, 64800, 1230, 15928, 2955, 56146]


def test_a_model_that_babbles_babbles_the_same(babbling: pathlib.Path) -> None:
    loaded = load(str(babbling))
    contents: list[Content] = ["hello", "x" * 300, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]]
    expected = generate(loaded, contents, rows=1)
    backend = PackedBackend(loaded, budget_tokens=BUDGET)
    found = drive(backend, backend.prepare(contents), (2, 3))
    assert [answer.raw for answer in found] == expected
    assert {answer.output_tokens for answer in found} == {128}
    assert {answer.probabilities for answer in found} == {None}
    assert [answer.responds for answer in found] == [False, False, True]
    assert {answer.flaw for answer in found} == {"it did not end within 128 tokens"}


def test_what_the_pass_does_not_cover_is_judged_by_generate_and_said(
    babbling: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = json.loads((babbling / "config.json").read_text())
    (babbling / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu"}))
    assert why_not(load(str(babbling)).network) == "attention bias or another activation than SiLU"
    assert isinstance(_make(str(babbling)), GenerateBackend)
    assert "padded generate instead of the packed pass" in caplog.text


def test_a_pass_that_disagrees_with_the_model_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("cpu_rotate", "rotate"):  # the one of fp32, and the one of what a CPU with units for bf16 takes
        monkeypatch.setattr(f"worker.engine.forward.elementwise.{name}", lambda x, head, cos, sin, eps: x)
    assert isinstance(_make("demo"), GenerateBackend)
    assert "off by" in caplog.text


@pytest.mark.parametrize(
    ("file", "field", "value", "said"),
    [
        ("config.json", "max_position_embeddings", 64, "its policy, a word and an answer need"),
        ("generation_config.json", "eos_token_id", "2", "not a token id or a list"),
        ("generation_config.json", "eos_token_id", [[2]], "not a token id or a list"),
        ("config.json", "compression_config", "zip", "cannot be loaded"),
        ("tokenizer_config.json", "chat_template", "Safety: {% raise %}", "cannot be"),
    ],
)
def test_an_odd_folder_is_refused_in_one_sentence(file: str, field: str, value: Any, said: str, babbling: pathlib.Path) -> None:
    path = babbling / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | {field: value}))
    if field == "chat_template":
        (babbling / "chat_template.jinja").write_text(value)
    with pytest.raises(ConfigurationError, match=said):
        _make(str(babbling))


@pytest.mark.parametrize("content", [b"", b"  \n", b'{"eos_token_id": ', b"[2]", b"null", b'"x"', b"\xff\xfe{}"])
def test_a_generation_config_that_is_no_json_object_is_refused_in_one_sentence(content: bytes, babbling: pathlib.Path) -> None:
    """The library would pass over it, and take from config.json what ends an answer."""
    (babbling / "generation_config.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"generation_config.json is (empty|not a JSON object): download .* again") as said:
        _make(str(babbling))
    assert "\n" not in str(said.value)


def test_the_demo_model_is_judged_by_the_packed_pass() -> None:
    assert isinstance(_make("demo"), PackedBackend)


def _make(model: str) -> Any:
    return make_backend(Spec(model=model, device="cpu"))
