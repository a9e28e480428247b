"""Conversations of many formats: each gets turns that the guard's template shows, or is refused with the reason."""

from typing import Any

import pytest

from guardfleet.errors import ContentError
from guardfleet.rows.conversations import turns_of
from worker.engine.prompting.prompt import messages_of

ASK, SAY = {"role": "user", "content": "Is it open?"}, {"role": "assistant", "content": "It is."}
CALL = {"id": "c9", "type": "function", "function": {"name": "hours", "arguments": '{"shop":"bakery"}'}}


def said(*messages: dict[str, Any]) -> list[tuple[str, str]]:
    return [(turn["role"], turn["content"]) for turn in turns_of(list(messages))]


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        ([ASK, SAY], [("user", "Is it open?"), ("assistant", "It is.")]),
        ([{"role": " Human", "content": "hi"}, {"role": "MODEL", "content": "yo"}], [("user", "hi"), ("assistant", "yo")]),
        ([{"role": "developer", "content": "Be kind."}, ASK], [("system", "Be kind."), ("user", "Is it open?")]),
        (
            [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, ASK],
            [("system", "a\n\nb"), ("user", "Is it open?")],
        ),
        ([{"role": "system", "content": "Only rules."}], [("user", "Only rules.")]),
        (
            [ASK, {"role": "system", "content": "It is Sunday."}, SAY],
            [("user", "Is it open?"), ("user", "[system]\nIt is Sunday."), ("assistant", "It is.")],
        ),
        ([SAY, ASK], [("user", ""), ("assistant", "It is."), ("user", "Is it open?")]),
        ([ASK, {"role": "user", "content": "Today?"}], [("user", "Is it open?"), ("user", "Today?")]),
        ([ASK, {"role": "assistant", "content": " "}], [("user", "Is it open?")]),
        ([ASK, {"role": "assistant", "content": None}], [("user", "Is it open?")]),
        (
            [ASK, {"role": "assistant", "content": None, "tool_calls": [CALL]}],
            [("user", "Is it open?"), ("assistant", '[tool call] hours {"shop":"bakery"}')],
        ),
        (
            [ASK, {"role": "assistant", "content": "Let me see.", "function_call": {"name": "hours", "arguments": {"day": 7}}}],
            [("user", "Is it open?"), ("assistant", 'Let me see.\n[tool call] hours {"day":7}')],
        ),
        (
            [ASK, {"role": "tool", "tool_call_id": "c9", "name": "hours", "content": "closed"}, SAY],
            [("user", "Is it open?"), ("user", "[tool result of hours]\nclosed"), ("assistant", "It is.")],
        ),
        ([ASK, {"role": "function", "content": "closed"}], [("user", "Is it open?"), ("user", "[tool result]\nclosed")]),
        (
            [ASK, {"role": "assistant", "content": "", "refusal": "I would rather not."}],
            [("user", "Is it open?"), ("assistant", "I would rather not.")],
        ),
        (
            [ASK, {"role": "assistant", "content": "No.", "reasoning_content": "It is late."}],
            [("user", "Is it open?"), ("assistant", "<think>\nIt is late.\n</think>\n\nNo.")],
        ),
        (
            [ASK, {"role": "assistant", "content": None, "audio": {"id": "a", "data": "AAAA", "transcript": "It is."}}],
            [("user", "Is it open?"), ("assistant", "It is.")],
        ),
        ([{"role": "user", "content": "", "content_blocks": [{"type": "text", "text": "Is it open?"}]}], [("user", "Is it open?")]),
        (
            [{"role": "user", "content": "once", "content_blocks": [{"type": "text", "text": "once"}]}],
            [("user", "once")],
        ),
        (
            [{"role": "user", "content": [{"type": "input_text", "text": "one"}, "two", {"type": "text", "text": "three"}]}],
            [("user", "one\ntwo\nthree")],
        ),
        (
            [
                {"role": "user", "content": [{"type": "text", "text": "Is it open?"}]},
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "hours", "input": {"day": "Sunday"}}]},
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "no"}]}],
                },
            ],
            [("user", "Is it open?"), ("assistant", '[tool call] hours {"day":"Sunday"}'), ("user", "[tool result]\nno")],
        ),
        (
            [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}],
            [("system", "Be kind."), ("user", "hi"), ("assistant", "hello")],
        ),
        (
            [
                {"from": "human", "value": "go"},
                {"from": "function_call", "value": "run()"},
                {"from": "observation", "value": "ran"},
            ],
            [("user", "go"), ("assistant", "[tool call] run()"), ("user", "[tool result]\nran")],
        ),
        (
            [
                {"parts": [{"text": "go"}]},
                {"role": "model", "parts": [{"functionCall": {"name": "run", "args": {"fast": True}}}]},
                {"role": "user", "parts": [{"functionResponse": {"name": "run", "response": {"done": 1}}}]},
            ],
            [("user", "go"), ("assistant", '[tool call] run {"fast":true}'), ("user", '[tool result of run]\n{"done":1}')],
        ),
        ([{"role": "user", "name": "anna", "id": "m1", "created_at": "today", "content": "hi"}], [("user", "hi")]),
    ],
)
def test_every_word_is_in_a_turn_that_the_template_shows(messages: list[Any], turns: list[tuple[str, str]]) -> None:
    assert said(*messages) == turns
    assert messages_of(turns_of(messages)) == tuple(turns)


@pytest.mark.parametrize(
    ("message", "code", "named"),
    [
        ({"role": "narrator", "content": "x"}, "unknown_role", "'narrator'"),
        ({"role": "some sentence as a role", "content": "x"}, "unknown_role", "of another name"),
        ({"content": "x"}, "unknown_role", "no role"),
        ({"role": "user", "from": "gpt", "content": "x"}, "unknown_role", "two roles"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}, "unsupported_content", "images"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "unsupported_content", "audio"),
        ({"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}, "unsupported_content", "files"),
        ({"role": "user", "parts": [{"inlineData": {"data": "AA"}}]}, "unsupported_content", "images"),
        ({"role": "user", "content": [{"type": "hologram", "light": "x"}]}, "unsupported_content", "'hologram'"),
        ({"role": "assistant", "content": None, "audio": {"id": "a"}}, "unsupported_content", "audio"),
        ({"role": "user", "content": "", "caption": "words"}, "unknown_member", "'caption'"),
        ({"role": "user", "content": "x", "extra": [{"deep": {"deeper": ["words"]}}]}, "unknown_member", "'extra'"),
        ({"role": "user", "content": [{"type": "text", "text": "x", "alt": "words"}]}, "unknown_member", "'alt'"),
        ({"role": "assistant", "tool_calls": [{**CALL, "comment": "words"}]}, "unknown_member", "'comment'"),
        ({"role": "user", "content": 5}, "wrong_type", "neither a string nor"),
        ({"role": "user", "content": [{"type": "text", "text": 5}]}, "wrong_type", "not a string"),
        ("hello", "wrong_type", "not an object"),
    ],
)
def test_what_cannot_be_judged_is_refused_by_its_name(message: Any, code: str, named: str) -> None:
    with pytest.raises(ContentError, match=named) as caught:
        turns_of([message])
    assert caught.value.code == code
    assert "words" not in caught.value.detail
    assert "sentence" not in caught.value.detail


@pytest.mark.parametrize("empty", [None, "", [], {}, 3, False, [None, {"a": ""}]])
def test_a_member_without_words_is_in_nobodys_way(empty: Any) -> None:
    assert said({"role": "user", "content": "hi", "caption": empty}) == [("user", "hi")]


def test_messages_may_be_the_json_of_a_list() -> None:
    assert turns_of('[{"role": "user", "content": "hi"}]') == [{"role": "user", "content": "hi"}]
    for bad in ("[", '"hi"', "{}", "hello"):
        with pytest.raises(ContentError, match=r"messages (must be|is a string that is not JSON)"):
            turns_of(bad)


def test_arguments_that_hold_themselves_are_refused() -> None:
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(ContentError, match="deeper"):
        turns_of([ASK, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": loop}}]}])
