"""No word is skipped: words outside the text that is read are judged, refused, or kept as metadata on request."""

import json
from typing import Any

import pytest

from guardfleet.errors import ContentError, LineError
from guardfleet.rows.columns import AS_NAMED, Columns
from guardfleet.rows.conversations import turns_of
from guardfleet.rows.payload import PayloadRow
from guardfleet.rows.row import take_line

TOLD = Columns.of("comment", None, None)
OPENAI = {"custom_id": "r", "method": "POST"}
HI = [{"role": "user", "content": "hi"}]


def line(value: Any, columns: Columns | None = None) -> PayloadRow | LineError:
    raw = value if isinstance(value, str) else json.dumps(value)
    return take_line(1, raw.encode(), max_text_bytes=1 << 16, columns=columns or Columns())


def code_of(found: PayloadRow | LineError) -> str | None:
    return found.code if isinstance(found, LineError) else None


@pytest.mark.parametrize(
    "value",
    [
        {"request": "/x", "text": "ok", "comment": "words"},
        {"request": {"contents": [{"parts": [{"text": "ok"}]}]}, "comment": "words"},
        {"custom_id": "a", "comment": "words"},
        {"custom_id": "a", "url": "/v1/moderations", "body": {"input": "ok"}, "comment": "words"},
    ],
)
def test_a_column_that_was_named_is_what_is_judged(value: dict[str, Any]) -> None:
    found = line(value, TOLD)
    assert isinstance(found, PayloadRow)
    assert found.content == "words"
    assert found.metadata is not None
    assert found.metadata.keys() == value.keys() - {"comment"}


def test_a_custom_id_alone_makes_no_batch_line() -> None:
    assert line({"custom_id": "a", "text": "words", "url": "/x"}) == PayloadRow("line:1", "words", {"custom_id": "a", "url": "/x"})
    assert line({"custom_id": "a", "request": "/x", "messages": HI}) == PayloadRow(
        "line:1", HI, {"custom_id": "a", "request": "/x"}  # type: ignore[arg-type]
    )  # fmt: skip
    found = take_line(1, b'{"custom_id": "a", "text": "x", "url": "/x"}', max_text_bytes=9, url="/v1/moderations")
    assert code_of(found) is None
    assert code_of(line({"custom_id": "a"})) == "wrong_type"


@pytest.mark.parametrize("twice", ['[{"role":"user","content":"words","content":"ok"}]', '[{"role":"user","role":"user"}]'])
def test_a_member_that_comes_twice_in_a_cell_is_seen(twice: str) -> None:
    with pytest.raises(ContentError, match="repeated_key"):
        turns_of(AS_NAMED.conversation("messages", twice, has_text=False))
    found = line({"text": "x", "lang": "en", "metadata": '{"a": 1, "a": 2}'})
    assert isinstance(found, PayloadRow)
    assert found.metadata == {"lang": "en", "a": 2}
    assert found.notes == ("metadata: a member came more than once, the last is kept",)


@pytest.mark.parametrize(
    "more",
    [
        *({name: "words"} for name in ("contents", "conversation", "conversations", "messages", "body", "request", "link")),
        {"status": "words"},
        {"request": {"input": "words"}},
        {"author": {"about": "words"}},
        {"labels": [["words"]]},
    ],
)
def test_an_empty_text_hides_no_words_under_a_known_name(more: dict[str, Any]) -> None:
    assert code_of(line({"text": "", **more})) in ("unknown_member", "missing_text", "wrong_type")
    if more.keys() <= {"contents", "conversation", "conversations"}:
        assert code_of(line({"comment": "", **more}, TOLD)) == "unknown_member"


def test_what_was_read_and_says_nothing_hides_nothing() -> None:
    blank = [{"role": "user", "content": " "}]
    assert code_of(line({"id": "a", "messages": blank, "labels": ["spam"], "metadata": {"note": "words"}})) is None
    assert code_of(line({"messages": blank, "conversation": "words"})) == "unknown_member"


@pytest.mark.parametrize(
    "value",
    [
        {"url": "/v1/moderations", "body": {"input": "", "text": "words"}},
        {"url": "/v1/moderations", "body": {"input": "hi", "messages": [{"role": "user", "content": "words"}]}},
        {"url": "/v1/moderations", "body": {"input": "hi", "conversation": "words"}},
        {"url": "/v1/moderations", "body": {"input": "hi"}, "text": "words"},
        {"url": "/v1/chat/completions", "body": {"messages": HI, "input": "words"}},
        {"url": "/v1/chat/completions", "body": {"messages": HI, "prompt": "words"}},
        {"url": "/v1/chat/completions", "body": {"messages": HI}, "messages": [{"role": "user", "content": "words"}]},
    ],
)
def test_a_batch_line_has_no_words_under_another_name(value: dict[str, Any]) -> None:
    found = line(OPENAI | value)
    assert code_of(found) == "unknown_member"
    assert "words" not in str(found)


def test_geminis_lines_have_no_words_under_another_name_either() -> None:
    contents = [{"parts": [{"text": "ok"}]}]
    assert code_of(line({"request": {"contents": contents}})) is None
    assert code_of(line({"request": {"contents": contents}, "text": "words"})) == "unknown_member"
    assert code_of(line({"request": {"contents": contents, "text": "words"}})) == "unknown_member"
    twice = f'{{"request": {{"contents": [{{"text": "words"}}], "contents": {json.dumps(contents)}}}}}'
    assert code_of(line(twice)) == "repeated_key"
    instruction = {"parts": [{"text": "ok"}], "text": "words"}
    assert code_of(line({"request": {"contents": contents, "systemInstruction": instruction}})) == "unknown_member"


def test_a_system_instruction_counts_beside_messages_that_are_json_in_a_string() -> None:
    found = line({"messages": json.dumps(HI), "system_instruction": "words"})
    assert isinstance(found, PayloadRow)
    assert found.content == [{"role": "system", "content": "words"}, *HI]


@pytest.mark.parametrize(
    "message",
    [
        {"thought": "words"},
        {"prefix": "words"},
        {"logprobs": {"content": [{"token": "words"}]}},
        {"author": {"about": "words"}},
        {"name": {"words": "words"}},
        {"status": [["words"]]},
        {"content": [{"type": "function_call", "function_call": {"name": "f"}, "arguments": "words"}]},
        {"content": [{"type": "functionCall", "functionCall": {"name": "f"}, "function_call": {"arguments": "words"}}]},
        {"content": [{"type": "function_response", "functionResponse": {}, "function_response": {"output": "words"}}]},
        {"tool_calls": [{"function": {"name": "f"}, "arguments": "words"}]},
        {"tool_calls": [{"function": {"name": "f"}, "custom": {"name": "g", "input": "words"}}]},
        {"tool_calls": [{"name": {"words": "words"}, "arguments": "x"}]},
        {"content": [{"type": "text", "text": "x", "cache_control": {"note": "words"}}]},
    ],
)
def test_a_message_has_no_words_where_nobody_looks(message: dict[str, Any]) -> None:
    with pytest.raises(ContentError, match="unknown_member"):
        turns_of([{"role": "assistant", "content": "ok", **message}])


def test_what_says_something_about_a_message_is_in_nobodys_way() -> None:
    about = {
        "name": "anna", "status": "done", "author": {"name": "anna", "metadata": {}}, "metadata": {"note": "words"},
        "thought": True, "usage": {"tokens": 7, "service_tier": "default"}, "is_error": False, "timestamp": "2026-01-01 10:00",
        "labels": ["a", "b"],
    }  # fmt: skip
    part = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral", "ttl": "5m"}}
    assert turns_of([{"role": "user", "content": [part], **about}]) == HI


@pytest.mark.parametrize(
    "member",
    [
        '"function_call":{"name":"f","arguments":{"a":"words","a":"ok"}}',
        '"content":[{"functionResponse":{"response":"words","response":"ok"}}]',
        '"audio":{"transcript":"words","transcript":"ok"}',
    ],
)
def test_a_member_that_comes_twice_anywhere_in_a_message_is_refused(member: str) -> None:
    assert code_of(line(f'{{"messages":[{{"role":"assistant",{member}}}]}}')) == "repeated_key"
