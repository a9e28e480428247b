"""A line of input as a row: ids, metadata, numbers, repeated keys, batch lines; an error in a line refuses only that line."""

import decimal
import json
import types
import uuid
from typing import Any

import pytest

from guardfleet.errors import LineError
from guardfleet.rows.columns import Columns
from guardfleet.rows.payload import PayloadRow
from guardfleet.rows.row import SeenIds, is_row, parse_line, row_of, take_line

LIMIT = 1 << 20


def line(raw: str | bytes, *, number: int = 3, **more: Any) -> PayloadRow | LineError:
    return take_line(number, raw.encode("utf-8", "surrogatepass") if isinstance(raw, str) else raw, max_text_bytes=LIMIT, **more)


def taken(value: Any, number: int = 3) -> PayloadRow:
    return row_of(number, value, max_text_bytes=LIMIT)


def refused(found: PayloadRow | LineError) -> tuple[str, str]:
    assert isinstance(found, LineError)
    return found.code, found.detail


@pytest.mark.parametrize("given", [None, "", float("nan")])
def test_a_row_without_an_id_is_called_by_its_line(given: Any) -> None:
    assert taken({"id": given, "text": "x"}).id == "line:3"
    assert taken({"text": "x"}).id == "line:3"
    assert taken("x").id == "line:3"


def test_an_invented_id_cannot_be_another_lines() -> None:
    assert taken({"id": "line:3", "text": "x"}).id == "line:3"  # a file that was written of results
    with pytest.raises(LineError, match="rows without an id"):
        taken({"id": "line:4", "text": "x"})
    assert taken({"id": "line:four", "text": "x"}).id == "line:four"


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (7, "7"),
        (7.0, "7"),
        (-7.0, "-7"),
        (decimal.Decimal("7.00"), "7"),
        ("7.0", "7.0"),
        (12345678901234567890123, "12345678901234567890123"),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (bytes(15) + b"\x05", "00000000-0000-0000-0000-000000000005"),
        ("=1+1", "=1+1"),
    ],
)
def test_ids_are_taken_as_what_they_are(given: Any, shown: str) -> None:
    assert taken({"id": given, "text": "x"}).id == shown


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ('{"id": 1.5, "text": "x"}', "id is 1.5, not whole"),
        ('{"id": 1e300, "text": "x"}', "last digit is uncertain"),
        ('{"id": 9007199254740993.0, "text": "x"}', "last digit is uncertain"),
        ('{"id": true, "text": "x"}', "this is a boolean"),
        ('{"id": [1], "text": "x"}', "this is a list"),
        ('{"id": "' + "9" * 513 + '", "text": "x"}', "513 characters"),
        ('{"id": ' + "9" * 5000 + ', "text": "x"}', "last digit is uncertain"),
        ('{"id": "a\\u0000b", "text": "x"}', "NUL"),
        ('{"id": "a\\ud800b", "text": "x"}', "surrogate"),
    ],
)
def test_an_id_that_cannot_be_one_is_refused(raw: str, said: str) -> None:
    code, detail = refused(line(raw))
    assert code == "invalid_id"
    assert said in detail


def test_whole_numbers_beyond_64_bits_keep_every_digit() -> None:
    for digits in ("18446744073709551617", "123456789012345678901234567890"):
        row = line(f'{{"id": {digits}, "text": "x", "metadata": {{"n": {digits}, "deep": [{digits}]}}}}')
        assert isinstance(row, PayloadRow)
        assert row.id == digits
        assert row.metadata == {"n": digits, "deep": [digits]}


def test_a_repeated_id_is_refused_with_the_line_of_the_first() -> None:
    seen = SeenIds()
    seen.check(17, "a")
    seen.check(70_000, "b")
    for row_id, first in (("a", 17), ("b", 70_000)):
        with pytest.raises(LineError, match=f"used before, in line {first} ") as caught:
            seen.check(80_000, row_id)
        assert caught.value.line == 80_000


@pytest.mark.parametrize(
    "raw",
    [
        '{"id": "a", "text": "one", "text": "two"}',
        '{"id": "a", "id": "b", "text": "one"}',
        '{"id": "a", "text" : "one", "\\u0074ext" : "two"}',
        '{"id": "a", "messages": [{"role": "user", "content": "one", "content": "two"}]}',
        '{"id": "a", "messages": [{"role": "user", "role": "assistant", "content": "one"}]}',
        '{"id": "a", "messages": [{"role": "user", "content": [{"type": "text", "text": "one", "text": "two"}]}]}',
        '{"custom_id": "a", "url": "/v1/moderations", "body": {"input": "one", "input": "two"}}',
        '{"id": "a", "text": "a colon: here \\u003a and \\u003a", "text": "two"}',
    ],
)
def test_a_repeated_member_that_matters_is_refused(raw: str) -> None:
    code, detail = refused(line(raw))
    assert code == "repeated_key"
    assert "more than once" in detail


def test_a_repeated_member_of_what_is_passed_on_costs_no_verdict() -> None:
    row = line('{"id": "a", "text": "x", "other": 1, "other": 2, "metadata": {"k": 1, "k": 2, "in": {"j": 1, "j": 2}}}')
    assert isinstance(row, PayloadRow)
    assert row.metadata == {"other": 2, "k": 2, "in": {"j": 2}}
    assert len(row.notes) == 2


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"input": "one"}, "one"),
        ({"input": ["one"], "model": "omni-moderation-latest"}, "one"),
        ({"input": [{"type": "text", "text": "one"}]}, "one"),
        ({"input": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}, "one\ntwo"),
        ({"input": ""}, ""),
    ],
)
def test_a_batch_line_takes_what_moderations_take(body: Any, text: str) -> None:
    raw = json.dumps({"custom_id": "r", "method": "POST", "url": "/v1/moderations", "body": body})
    row = line(raw, url="/v1/moderations")
    assert row == PayloadRow("r", text)


def test_a_batch_line_takes_what_chat_clients_write() -> None:
    parts = [{"type": "text", "text": "one"}]
    raw = json.dumps({"custom_id": 5, "url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": parts}]}})
    assert line(raw) == PayloadRow("5", [{"role": "user", "content": "one"}])


@pytest.mark.parametrize(
    ("value", "code", "said"),
    [
        ({"url": "/v1/moderations", "body": {"input": ["one", "two"]}}, "wrong_type", "a line has one input, this one has 2"),
        ({"url": "/v1/moderations", "body": {"input": []}}, "wrong_type", "input must be a string"),
        ({"url": "/v1/moderations", "body": {"input": [1, 2, 3]}}, "wrong_type", "a list of text parts"),
        ({"url": "/v1/moderations", "body": {"input": [{"type": "image_url", "image_url": {}}]}}, "unsupported_content", "images"),
        ({"url": "/v1/moderations", "body": {"input": "", "prompt": "words"}}, "unknown_member", "'prompt'"),
        ({"url": "/v1/moderations", "body": {}}, "missing_text", "body has no input"),
        ({"url": "/v1/moderations", "body": {"input": "a", "flag_from": "controversial"}}, "unknown_member", "from unsafe on"),
        ({"url": "/v1/moderations", "body": {"input": "a", "flag_from": None}}, "unknown_member", "flag_from"),
        ({"url": "/v1/moderations", "body": {"input": "a", "detectors": ["x"]}}, "unknown_member", "option of the whole batch"),
        (
            {"url": "/v1/chat/completions", "body": {"messages": []}, "detectors": "x"},
            "unknown_member",
            "option of the whole batch",
        ),
        ({"url": "/v1/chat/completions", "body": {"messages": None}}, "missing_text", "body has no messages"),
        ({"url": "/v1/responses", "body": {"input": "one"}}, "wrong_type", "whose url is"),
        ({"body": {"input": "one"}}, "wrong_type", "whose url is"),
        ({"url": "/v1/moderations", "method": "GET", "body": {"input": "one"}}, "wrong_type", "must be a POST"),
        ({"url": "/v1/moderations", "body": "one"}, "wrong_type", "body must be an object"),
        ({"response": {"status_code": 200, "body": {"output": "words"}}, "error": None}, "already_judged", "no request"),
    ],
)
def test_a_batch_line_is_refused_with_what_to_do(value: dict[str, Any], code: str, said: str) -> None:
    found = line(json.dumps({"custom_id": "r", **value}))
    assert refused(found)[0] == code
    assert said in refused(found)[1]
    assert isinstance(found, LineError)
    assert found.row_id == "r"


@pytest.mark.parametrize("value", [{"id": "r"}, {"id": "r", "text": 5}, {"custom_id": "r"}, {"id": "r", "text": "x" * (LIMIT + 1)}])
def test_a_refused_row_keeps_its_id_whoever_reads_it(value: dict[str, Any]) -> None:
    with pytest.raises(LineError) as caught:
        taken(value)
    assert caught.value.row_id == "r"


def test_a_verdict_that_is_fed_back_is_refused() -> None:
    verdict = {"id": "a", "severity": "safe", "categories": [], "rationale": "Safe, no category"}
    for more in ({}, {"text": "hello"}):
        assert refused(line(json.dumps(verdict | more)))[0] == "already_judged"


@pytest.mark.parametrize("name", ["conversations", "conversation", "contents"])
def test_a_conversation_is_found_under_its_other_names(name: str) -> None:
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
    assert taken({"id": "a", name: turns}).content == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
    ]
    assert taken({"id": "a", "text": "x", name: "c-17"}).content == "x"  # other things are called so too


def test_geminis_own_batch_lines_are_taken() -> None:
    request = {"system_instruction": {"parts": [{"text": "Be kind."}]}, "contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
    row = taken({"key": "k", "request": request})
    assert row == PayloadRow("k", [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    "value",
    [
        {"id": "a", "text": "", "content": "words"},
        {"id": "a", "text": "  ", "data": {"deep": ["words"]}},
        {"id": "a", "messages": [{"role": "user", "content": ""}], "prompt": "words"},
    ],
)
def test_an_empty_text_beside_another_that_nobody_reads_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(LineError, match="unknown_member"):
        taken(value)


@pytest.mark.parametrize("more", [{}, {"lang": "en"}, {"metadata": {"note": "words"}}, {"data": {}}, {"label": "spam"}])
def test_an_empty_text_alone_is_taken(more: dict[str, Any]) -> None:
    assert taken({"id": "a", "text": " ", **more}).content == " "


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"id": "a", "body": "x", "words of a text": 1}, "this one has 'id', 'body', of another name"),
        ({}, "this one is empty"),
        ({"id": "a", "text": None}, "the text is null"),
        ({"text": "x", "messages": []}, "has both"),
        ({"messages": [], "conversation": []}, "messages and conversation"),
    ],
)
def test_a_row_without_one_text_is_refused_with_what_it_has(value: dict[str, Any], said: str) -> None:
    with pytest.raises(LineError) as caught:
        taken(value)
    assert (caught.value.code, said in caught.value.detail) == ("missing_text", True)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"id": "1", "text": "x"', "column"),
        (b"{]", "column"),
        (b"[" * 100_000, "column"),
        (b'"' * 99_999, "column"),
        (b'\\"' * 50_000, "column"),
        (b'{"text": "a\tb"}', "Invalid control character at column 12"),
    ],
)
def test_what_is_no_json_says_where(raw: bytes, said: str) -> None:
    code, detail = refused(line(raw))
    assert code == "invalid_json"
    assert said in detail


def test_what_is_refused_holds_no_frames() -> None:
    for bad in (line(b"{bad"), line(b'{"id": "a"}'), line(b'{"text": 5}')):
        assert isinstance(bad, LineError)
        assert (bad.__traceback__, bad.__context__, bad.__cause__) == (None, None, None)


def test_a_line_in_another_encoding_names_its_first_byte() -> None:
    assert refused(line(b'{"id": "1", "text": "caf\xe9"}')) == ("invalid_encoding", "the line is not UTF-8: byte 25 of it is 0xe9")
    assert refused(line(b'\xff\xfe{"a"')) == ("invalid_encoding", "the line is not UTF-8: byte 1 of it is 0xff")


def test_texts_come_through_byte_for_byte() -> None:
    for text in ("a\0b", "\ud800", "\u2028x\u0085", "\ufeff", "a: b: c", "\x1b[31m", 'q"uote\\'):
        row = line(json.dumps({"id": "a", "text": text}))
        assert isinstance(row, PayloadRow)
        assert row.content == text
        assert line(json.dumps({"id": "a", "text": text}, ensure_ascii=False)) == row


def test_what_is_no_row_at_all_can_be_told() -> None:
    assert all(is_row(value) for value in ("text", {"text": 5}, {"custom_id": 1}, {"id": "a"}))
    assert not any(is_row(value) for value in (5, None, [], {}, {"rows": []}, types.MappingProxyType({"a": 1})))


def test_numpys_and_pandas_values_are_taken_for_what_they_are() -> None:
    np = pytest.importorskip("numpy")
    row = taken({"id": np.int64(7), "text": "x", "metadata": {"a": np.float32(0.5), "b": np.array([1, 2]), "c": np.bool_(True)}})
    assert (row.id, row.metadata, row.notes) == ("7", {"a": 0.5, "b": [1, 2], "c": True}, ())
    assert taken({"id": np.float64("nan"), "text": "x"}).id == "line:3"
    assert taken({"id": "a", "text": "x", "metadata": {"at": np.datetime64("2026-01-01T00:00:00", "ms")}}).metadata == {
        "at": "2026-01-01T00:00:00"
    }


def test_a_repeated_member_is_told_whatever_the_text_is_called() -> None:
    value = parse_line(3, b'{"comment": "one", "comment": "two", "nr": 1}')
    for columns in (Columns("comment", "nr"), Columns("comment", "nr", is_told=True)):
        with pytest.raises(LineError, match="'text' occurs more than once"):
            taken(columns.row(value))
