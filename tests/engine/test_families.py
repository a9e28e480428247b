"""Families are found by their templates; prompts are the template's own, and nothing that is given can leave its place."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardfleet.errors import ConfigurationError
from tests.services.families import RISKS, SHAPES, copy_of_family, tokenizer_of_family
from worker.engine.families.detector import labels_as
from worker.engine.families.family import Family, Grammar, family_of
from worker.engine.families.template import Template
from worker.engine.model import loading
from worker.engine.prompting.prompt import POLICY, Prompter, Turns
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.prompting.role_labels import Labels
from worker.engine.prompting.under_policy import UnderPolicy

NAMES = sorted(SHAPES)
POLICIES = ("1. No text about ships.", "- a: Ships\n  - Any ship.\n- dw: Weapons\n  - Toys are none.", " spaced \n")
TEXTS = ("hi", " Is it so?\n", "\n\nx", "e\u0301a, \u6f22\u5b57 1234", "\r\n:\t")


@pytest.fixture(scope="session")
def tokenizers(real_tokenizer: Any) -> dict[str, Any]:
    return {name: tokenizer_of_family(real_tokenizer, name) for name in NAMES}


@pytest.fixture(scope="session")
def prompters(tokenizers: dict[str, Any]) -> dict[str, Prompter]:
    return {name: loading.prompter_of(tokenizer) for name, tokenizer in tokenizers.items()}


def grammar_of(tokenizer: Any) -> Grammar:
    family = family_of(tokenizer)
    assert family is not None
    assert family.grammar is not None
    return family.grammar


def shown(tokenizer: Any, turns: Turns) -> str:
    """What transformers makes of them, without anything of ours."""
    given = {"policy": turns[0][1]} if turns[0][0] == POLICY else {}
    messages = [{"role": role, "content": content} for role, content in turns[len(given) :]]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False, **given)
    return text + "<answer>\n" if "<rules>" in tokenizer.chat_template else text


@pytest.mark.parametrize("name", NAMES)
def test_a_family_is_found_by_its_template_whatever_the_model_is_called(name: str, tokenizers: dict[str, Any]) -> None:
    family = family_of(tokenizers[name])
    assert family is not None
    assert (family.name, family.takes_policy, family.is_complete) == (name, True, name == "xguard")


def test_the_guards_is_no_other_and_a_chat_models_is_none(real_tokenizer: Any, tokenizers: dict[str, Any]) -> None:
    assert family_of(real_tokenizer) == Family("qwen3guard")
    chat = copy_of_family(real_tokenizer, "dynaguard")
    for template in ("{{ messages[0].content }}", "{{ policy }}{{ messages[0].content }}", "", "{{ 1 / 0 }}"):
        chat.chat_template = template
        assert family_of(chat) is None


@pytest.mark.parametrize("lacks", ["</rules>", "<transcript>", "PASS", "{{ policy }}"])
def test_a_template_that_lacks_one_part_of_a_family_is_not_of_it(lacks: str, real_tokenizer: Any) -> None:
    tokenizer = copy_of_family(real_tokenizer, "dynaguard")
    tokenizer.chat_template = tokenizer.chat_template.replace(lacks, "", 1)
    assert family_of(tokenizer) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("policy", [None, *POLICIES])
def test_prompts_have_the_ids_of_the_whole_template(
    name: str, policy: str | None, tokenizers: dict[str, Any], prompters: dict[str, Prompter]
) -> None:
    assert prompters[name].in_segments
    before: Turns = () if policy is None else ((POLICY, policy),)
    conversations: list[Turns] = [(("user", text),) for text in TEXTS] + [(("user", "a?"), ("assistant", "b!"))]
    found = UnderPolicy(prompters[name], policy).encode(conversations)
    for turns, encoded in zip(conversations, found, strict=True):
        text = shown(tokenizers[name], (*before, *turns))
        assert list(encoded.ids) == tokenizers[name](text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_neither_a_policy_nor_a_text_ends_its_section_or_the_prompt(name: str, data: st.DataObject) -> None:
    prompter = _PROMPTERS[name]
    tags = [f"<{slash}{gap}{tag}{gap}>" for tag in prompter.labels.tags for slash in ("", "/") for gap in ("", " ", "\u200b")]
    controls = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "</think>", "<think>"]
    pieces = st.sampled_from([*tags, *(tag.upper() for tag in tags), *prompter.labels.lines, *controls, "\n", "x ", "1."])
    policy, text = ("".join(data.draw(st.lists(pieces, max_size=9))) for _ in range(2))
    (plain,) = UnderPolicy(prompter, "p").encode([(("user", "t"),)])
    (found,) = UnderPolicy(prompter, policy or "p").encode([(("user", text),)])
    tokenizer = _TOKENIZERS[name]
    special = set(tokenizer.added_tokens_decoder)
    assert [i for i in found.ids if i in special] == [i for i in plain.ids if i in special]
    said, frame = tokenizer.decode(found.ids), tokenizer.decode(plain.ids)
    for tag in prompter.labels.tags:
        for mark in (f"<{tag}>", f"</{tag}>"):
            assert said.lower().count(mark.lower()) == frame.lower().count(mark.lower())
    for line in prompter.labels.lines:
        assert sum(row.startswith(line) for row in said.splitlines()) == sum(row.startswith(line) for row in frame.splitlines())


_TOKENIZERS: dict[str, Any] = {}
_PROMPTERS: dict[str, Prompter] = {}


@pytest.fixture(autouse=True)
def _known(tokenizers: dict[str, Any], prompters: dict[str, Prompter]) -> None:
    _TOKENIZERS.update(tokenizers)
    _PROMPTERS.update(prompters)


def test_the_marks_of_sections_are_found_in_the_template(prompters: dict[str, Prompter]) -> None:
    assert {"rules", "transcript", "answer"} <= set(prompters["dynaguard"].labels.tags)
    assert {"explanation", "think"} <= set(prompters["xguard"].labels.tags)
    assert {"# Dynamic Policy", "# Instructions", "[LLM Response]", "Input Text:"} <= set(prompters["xguard"].labels.lines)


def test_labels_of_risks_come_from_the_tokenizer_and_those_of_one_letter_from_the_policy(tokenizers: dict[str, Any]) -> None:
    grammar = grammar_of(tokenizers["xguard"])
    assert grammar.labels[: len(RISKS)] == tuple(RISKS.values())
    assert (grammar.neutral, grammar.own) == ("Safe-Safe", frozenset("abcdefgh"))

    def allowed(policy: str | None) -> list[str]:
        return [label for label, may in zip(grammar.labels, grammar.allowed(policy), strict=True) if may]

    assert allowed(None) == list(RISKS.values())
    assert allowed("- b: Boats\n- dw: Weapons\n  - c: within\nd: none") == [*RISKS.values(), "policy:b", "policy:c"]
    assert grammar.undefinable("- b: Boats\n- z: Zebras") == ["z"]


def test_what_a_model_is_as_a_detector_is_said_or_refused_in_one_sentence(tokenizers: dict[str, Any]) -> None:
    rules, words = (family_of(tokenizers[name]) for name in NAMES)
    assert rules is not None
    assert words is not None
    assert labels_as("m", rules, "policy", "") == (("PASS", "FAIL"), "PASS")
    assert labels_as("m", words, "risk", "Advice-Finance")[1] == "Advice-Finance"
    assert labels_as("m", Family("qwen3guard"), "guard", "") == ((), None)
    for family, detector, neutral, why in (
        (rules, "guard", "", "gives PASS, FAIL, no severities"),
        (Family("qwen3guard"), "policy", "", "no labels"),
        (rules, "policy", "SAFE", "has no label 'SAFE'"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            labels_as("m", family, detector, neutral)


@pytest.mark.parametrize("label", ["Error", "too short", "a\0b", "x" * 201])
def test_a_label_that_would_be_taken_for_something_else_is_refused(label: str) -> None:
    family = Family("xguard", grammar=Grammar(("Safe", label), ("s", "e"), "Safe", "", ""))
    with pytest.raises(ConfigurationError, match="has a label that "):
        labels_as("m", family, "risk", "")


def test_which_risk_is_none_is_asked_if_no_name_tells(real_tokenizer: Any) -> None:
    tokenizer = copy_of_family(real_tokenizer, "xguard")
    tokenizer.init_kwargs["id2risk"] = {"sec": "Nothing", "dw": "Weapons"}
    family = family_of(tokenizer)
    assert family is not None
    with pytest.raises(ConfigurationError, match="does not tell which label finds nothing"):
        labels_as("m", family, "risk", "")


def test_a_policy_is_known_by_its_own_digest_only() -> None:
    policy = PromptPolicy.of("1. No text about ships.")
    with pytest.raises(ValueError, match="digest"):
        PromptPolicy("another text", policy.digest)


def test_a_template_strips_what_it_strips(tokenizers: dict[str, Any]) -> None:
    assert Template(tokenizers["dynaguard"]).trims() == frozenset()
    assert Template(tokenizers["xguard"]).trims() == {"policy", "user", "assistant"}


def test_a_mark_that_begins_with_another_leaves_neither() -> None:
    said = Labels(("Input Text:", "Input Text: [User Query]")).neutralised("Input Text: [User Query]\nInput Text: x")
    assert not any(line.startswith("Input Text:") for line in said.splitlines())
