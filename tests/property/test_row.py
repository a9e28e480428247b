"""Laws of reading a row: only LineError is raised, no word goes unseen, and whatever is accepted can be stored and decrypted."""

import datetime as dt
import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from guardfleet.errors import ContentError, LineError
from guardfleet.rows import content_parts
from guardfleet.rows.columns import Columns
from guardfleet.rows.conversations import CONVERSATIONS, ROLES, is_blank, turns_of
from guardfleet.rows.json_text import JsonError, Repeated, parse
from guardfleet.rows.payload import PayloadRow
from guardfleet.rows.row import ABOUT, PLACED, row_of, take_line
from guardfleet.rows.row_ids import id_of
from guardfleet.rows.words import is_remark
from guardfleet.security.encryption import Keyring, new_secret_key
from worker.engine.prompting.prompt import messages_of

KEYRING = Keyring(new_secret_key())
DATA_KEY = KEYRING.new_data_key()
LIMIT = 1 << 20
ANY_TEXT = st.text(st.characters(), max_size=12)  # lone surrogates included
KEYS = st.sampled_from(["id", "custom_id", "text", "messages", "metadata", "body", "url", "role", "content", "parts", "from",
                        "value", "type", "input", "tool_calls", "conversations", "key", "request", "contents", "name"])  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats()
    | ANY_TEXT
    | st.sampled_from(["user", "assistant", "text", "/v1/moderations", "/v1/chat/completions", "line:2", "POST", "function"])
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | ANY_TEXT, inner, max_size=5))
PYTHON = st.recursive(
    SCALARS
    | st.binary(max_size=16)
    | st.dates()
    | st.datetimes()
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
    | st.complex_numbers()
    | st.sets(st.integers(), max_size=3)
    | st.builds(object),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS | ANY_TEXT | st.integers() | st.dates() | st.tuples(st.integers()), inner, max_size=5)
    ),
)


def check_storable(row: PayloadRow) -> None:
    """What goes to PostgreSQL is JSON without NUL and surrogates, and the sealed row opens to itself."""
    shown = json.dumps([row.id, row.metadata, row.notes], allow_nan=False)
    assert "\\u0000" not in shown
    shown.encode()
    json.dumps([row.id, row.metadata, row.notes], ensure_ascii=False).encode()
    blob = KEYRING.encrypt_rows(DATA_KEY, [row], job_id=5, shard_no=2)
    assert KEYRING.decrypt_rows(DATA_KEY, blob, job_id=5, shard_no=2) == [row]
    messages_of(row.content) if isinstance(row.content, str) or any(t["content"].strip() for t in row.content) else None


@given(
    st.binary(max_size=60) | JSON.map(json.dumps).map(str.encode) | st.text('[]{}",:\\u0az19.eE- \n', max_size=60).map(str.encode)
)
def test_any_bytes_are_a_row_or_an_error_of_their_line(raw: bytes) -> None:
    found = take_line(2, raw, max_text_bytes=LIMIT)
    if isinstance(found, LineError):
        assert found.line == 2
    else:
        check_storable(found)


@given(JSON | PYTHON | st.builds(lambda metadata: {"id": "a", "text": "x", "metadata": metadata}, PYTHON))
def test_any_value_is_a_row_or_an_error_of_its_line(value: Any) -> None:
    try:
        row = row_of(2, value, max_text_bytes=LIMIT)
    except LineError:
        return
    check_storable(row)


@given(PYTHON)
def test_metadata_never_costs_a_text_its_verdict(metadata: Any) -> None:
    assert row_of(1, {"id": "a", "text": "hello", "metadata": metadata}, max_text_bytes=LIMIT).content == "hello"


MEMBERS = st.sampled_from(["content", "value", "text", "parts", "content_blocks", "refusal", "reasoning", "thinking", "audio",
                           "tool_calls", "function_call", "caption", "title", "summary", "output", "thought", "prefix", "logprobs",
                           *sorted(content_parts.ABOUT)])  # fmt: skip
WORDS = st.integers(0, 10**9).map("word{:010d}".format)
KINDS = ["text", "input_text", "refusal", "tool_use", "thinking", "function_call", "functionCall", "function_response", "tool_call",
         "tool_result"]  # fmt: skip
PARTS = ["text", "refusal", "input", "thinking", "caption", "content", "arguments", "function_call", "functionCall",
         "function_response", "functionResponse"]  # fmt: skip
CALLS = ["function", "custom", "arguments", "transcript", "name", "response", "status"]
NESTED_WORDS = st.recursive(
    WORDS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.fixed_dictionaries({"type": st.sampled_from(KINDS)}, optional=dict.fromkeys(PARTS, inner))
        | st.fixed_dictionaries({}, optional=dict.fromkeys(CALLS, inner))
    ),
    max_leaves=5,
)
MESSAGES = st.lists(
    st.builds(
        lambda role, more: {"role": role, **more}, st.sampled_from(list(ROLES)), st.dictionaries(MEMBERS, NESTED_WORDS, max_size=3)
    ),
    min_size=1,
    max_size=5,
)


def words_of(value: Any, about: frozenset[str] = content_parts.ABOUT) -> Iterator[str]:
    """Every word that lies in it, but for metadata and scalars under names that say something about a text."""
    if isinstance(value, str) and "word" in value:
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key != "metadata" and not (key in about and is_remark(inner)):
                yield from words_of(inner, about)
    elif isinstance(value, list):
        for inner in value:
            yield from words_of(inner, about)


@given(MESSAGES)
def test_every_word_of_a_conversation_is_judged_or_the_conversation_is_refused(messages: list[dict[str, Any]]) -> None:
    try:
        turns = turns_of(messages)
    except ContentError:
        return
    shown = "\n".join(turn["content"] for turn in turns)
    assert [word for word in words_of(messages) if word not in shown] == []
    if shown.strip():
        messages_of(turns)  # raises for what the template would drop


SAID = st.just("") | WORDS
TURNS = st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": SAID}), min_size=1, max_size=2)
BODY = st.dictionaries(st.sampled_from(["input", "text", *CONVERSATIONS]), SAID | TURNS, max_size=3)
ROWS = st.dictionaries(
    st.sampled_from(["text", "comment", "request", "custom_id", "body", "link", "status", "content", "author", "label", *PLACED,
                     *CONVERSATIONS]),
    SAID | TURNS | BODY,
    max_size=4,
)  # fmt: skip


@given(ROWS, SAID)
def test_an_empty_text_is_taken_only_where_its_row_has_no_other_words(row: dict[str, Any], text: str) -> None:
    found = take_line(1, json.dumps({"text": text} | row).encode(), max_text_bytes=LIMIT)
    if isinstance(found, PayloadRow) and is_blank(found.content):
        beside = {name: inner for name, inner in row.items() if name not in PLACED}
        assert list(words_of(beside, ABOUT)) == []


@given(ROWS, SAID)
def test_the_column_that_was_named_is_judged_whatever_else_a_row_has(row: dict[str, Any], text: str) -> None:
    raw = json.dumps(row | {"comment": text}).encode()
    found = take_line(1, raw, max_text_bytes=LIMIT, columns=Columns.of("comment", None, None))
    assert isinstance(found, LineError) or found.content == text


@given(ROWS, BODY, st.sampled_from(["/v1/moderations", "/v1/chat/completions"]))
def test_every_word_that_a_batch_line_asks_about_is_judged_or_the_line_is_refused(
    row: dict[str, Any], body: dict[str, Any], url: str
) -> None:
    asked = {name: inner for name, inner in row.items() if name in ("text", *CONVERSATIONS)}
    for line in ({**asked, "custom_id": "a", "url": url, "body": body}, {**asked, "request": {"contents": [], **body}}):
        found = take_line(1, json.dumps(line).encode(), max_text_bytes=LIMIT)
        if isinstance(found, PayloadRow):
            assert [word for word in words_of([asked, body]) if word not in json.dumps(found.content)] == []


@given(
    st.lists(st.tuples(KEYS, st.integers(0, 9) | st.text('ab:\\"', max_size=4)), max_size=6),
    st.booleans(),
    st.sampled_from(["", " "]),
)
def test_a_key_that_came_twice_is_never_overlooked(pairs: list[tuple[str, Any]], is_escaped: bool, space: str) -> None:
    def key(name: str, at: int) -> str:
        return f'"\\u{ord(name[0]):04x}{name[1:]}"' if is_escaped and at % 2 else f'"{name}"'

    raw = "{" + ",".join(f"{key(name, at)}{space}:{json.dumps(value)}" for at, (name, value) in enumerate(pairs)) + "}"
    found, names = parse(raw.encode()), [name for name, _ in pairs]
    assert found == dict(pairs)
    assert isinstance(found, Repeated) is (len(set(names)) < len(names))
    if isinstance(found, Repeated):
        assert found.names == {name for name in names if names.count(name) > 1}


@given(JSON)
def test_parsing_is_what_it_is_everywhere(value: Any) -> None:
    raw = json.dumps(value)
    assert json.dumps(parse(raw.encode())) == json.dumps(json.loads(raw))


@given(st.text('[]{}",:\\ 1a', max_size=120), st.integers(0, 200))
def test_the_parser_raises_one_error_only_however_deep(raw: str, levels: int) -> None:
    for text in (raw, "[" * levels + raw + "]" * levels, '{"a":' * levels + raw + "}" * levels):
        with suppress(JsonError):
            parse(text.encode())


@given(
    st.integers(1, 99),
    st.integers(1, 99),
    st.none() | st.integers(0, 99) | st.floats() | st.uuids() | st.text(max_size=9) | st.just(""),
)
def test_an_invented_id_is_only_ever_of_its_own_line(line: int, other: int, given_id: Any) -> None:
    try:
        found = id_of(line, given_id)
    except ContentError:
        return
    if line != other:
        assert found != id_of(other, None)


def test_the_strategies_reach_what_they_are_for() -> None:
    row = row_of(1, {"id": uuid.UUID(int=1), "text": "x", "metadata": {"at": dt.date(2026, 1, 1)}}, max_text_bytes=LIMIT)
    check_storable(row)
