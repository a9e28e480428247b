"""One input row as a payload row, or a line-numbered error that says what is wrong with it and never quotes it."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from guardfleet.errors import LineError
from guardfleet.refusals import REFUSED, refusal_of
from guardfleet.sealing import PayloadRow

MAX_ID_CHARACTERS = 512
MAX_METADATA_CHARACTERS = 16_384
MODERATIONS, COMPLETIONS = "/v1/moderations", "/v1/chat/completions"


def longest_line(max_text_bytes: int) -> int:
    """Bytes of the longest line that can hold a text of so many: a byte of text is at most six in JSON, where it is escaped."""
    return 6 * max_text_bytes + (1 << 16)


def parse_line(line: int, raw: bytes) -> Any:
    """The JSON value of a line; raises LineError."""
    try:
        return json.loads(raw)
    except UnicodeDecodeError:
        raise LineError(line, "invalid_json", "the line is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise LineError(line, "invalid_json", f"{error.msg} at column {error.colno}") from None
    except RecursionError:
        raise LineError(line, "invalid_json", "JSON nested too deeply") from None


def take_line(line: int, raw: bytes, *, max_text_bytes: int, url: str | None = None) -> PayloadRow | LineError:
    """A line of JSONL as a row, or the error that it is. With `url`, a request to another one is an error."""
    value: Any = None
    try:
        value = parse_line(line, raw)
        if type(value) is dict and REFUSED in value:
            return refusal_of(line, value[REFUSED])
        row: PayloadRow | LineError = row_of(line, value, max_text_bytes=max_text_bytes)
    except LineError as error:
        row = error
    if url is not None and isinstance(value, Mapping) and value.get("url", url) != url:
        row = LineError(line, "url_mismatch", f"the batch is of requests to {url}")
    if isinstance(row, LineError):
        row.row_id = _known_id(line, value)
    return row


def _known_id(line: int, value: object) -> str | None:
    """The id of a row that is refused for something else."""
    if not isinstance(value, Mapping):
        return None
    with suppress(LineError):
        return _id(line, value.get("custom_id", value.get("id")))
    return None


def row_of(line: int, value: object, *, max_text_bytes: int) -> PayloadRow:
    """Take a parsed row: a string, `{"id", "text"}`, `{"id", "messages"}`, or an OpenAI batch line. Raises LineError."""
    if isinstance(value, str):
        return _sized(line, PayloadRow(str(line), value), max_text_bytes)
    if not isinstance(value, Mapping):
        raise LineError(line, "wrong_type", f"a row is an object, this is {_kind(value)}")
    if "custom_id" in value:
        return _sized(line, _openai_row(line, value), max_text_bytes)
    row = PayloadRow(_id(line, value.get("id", line)), _content(line, value), _metadata(line, value.get("metadata")))
    return _sized(line, row, max_text_bytes)


class SeenIds:
    """Finds repeated ids, in 7 bytes of memory each and 4 MB in all.

    Of each id it keeps a hash of 8 bytes: two choose the bucket, six lie in it one after the other. Among 10 million ids a false
    alarm has odds of 3 in a million. The hash is keyed anew each time, so that nobody can choose ids that share a bucket.
    """

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._buckets = [bytearray() for _ in range(1 << 16)]

    def check(self, line: int, row_id: str) -> None:
        """Raise LineError if the id came before."""
        mark = hashlib.blake2b(row_id.encode(), digest_size=8, key=self._key).digest()
        bucket, rest = self._buckets[mark[0] << 8 | mark[1]], mark[2:]
        at = bucket.find(rest)
        while at >= 0:
            if at % len(rest) == 0:
                raise LineError(line, "duplicate_id", "this id came before in the same input")
            at = bucket.find(rest, at + 1)  # the end of one and the beginning of the next
        bucket += rest


def _openai_row(line: int, value: Mapping[str, Any]) -> PayloadRow:
    url, body = value.get("url"), value.get("body")
    if value.get("method", "POST") != "POST" or url not in (MODERATIONS, COMPLETIONS):
        raise LineError(line, "wrong_type", f"a batch line is a POST to {MODERATIONS} or {COMPLETIONS}")
    if not isinstance(body, Mapping):
        raise LineError(line, "wrong_type", f"body is an object, this is {_kind(body)}")
    inner = {"text": body.get("input")} if url == MODERATIONS else {"messages": body.get("messages")}
    return PayloadRow(_id(line, value["custom_id"]), _content(line, inner), None)


def _id(line: int, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise LineError(line, "invalid_id", f"id is a string or an integer, this is {_kind(value)}")
    text = str(value)
    if not text or len(text) > MAX_ID_CHARACTERS:
        raise LineError(line, "invalid_id", f"id has {len(text)} characters, 1 to {MAX_ID_CHARACTERS} are taken")
    if not _is_storable(text):
        raise LineError(line, "invalid_id", "id holds a NUL byte or a lone surrogate")
    return text


def _content(line: int, value: Mapping[str, Any]) -> str | list[dict[str, str]]:
    text, messages = value.get("text"), value.get("messages")
    if (text is None) == (messages is None):
        raise LineError(line, "missing_text", "a row has either text or messages")
    if messages is None:
        if not isinstance(text, str):
            raise LineError(line, "wrong_type", f"text is a string, this is {_kind(text)}")
        return text
    if not isinstance(messages, list) or not messages:
        raise LineError(line, "wrong_type", "messages is a list of at least one message")
    return [_message(line, message) for message in messages]


def _message(line: int, message: object) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise LineError(line, "wrong_type", f"a message is an object, this is {_kind(message)}")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        raise LineError(line, "wrong_type", "a message has a role and a content that are strings")
    return {"role": role, "content": content}


def _metadata(line: int, value: object) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise LineError(line, "invalid_metadata", f"metadata is an object, this is {_kind(value)}")
    shown = repr(value)
    if len(shown) > MAX_METADATA_CHARACTERS:
        raise LineError(line, "invalid_metadata", f"metadata has more than {MAX_METADATA_CHARACTERS} characters")
    # repr spells NUL and lone surrogates as escapes; PostgreSQL's jsonb takes neither
    if "\\x00" in shown or "\\ud" in shown or "nan" in shown or "inf" in shown:
        _check_metadata(line, value)
    return value


def _check_metadata(line: int, value: object) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_metadata(line, key)
            _check_metadata(line, inner)
    elif isinstance(value, list):
        for inner in value:
            _check_metadata(line, inner)
    elif isinstance(value, str) and not _is_storable(value):
        raise LineError(line, "invalid_metadata", "metadata holds a NUL byte or a lone surrogate")
    elif isinstance(value, float) and value - value != 0:
        raise LineError(line, "invalid_metadata", "metadata holds a number that JSON has not")


def _sized(line: int, row: PayloadRow, max_text_bytes: int) -> PayloadRow:
    size = content_bytes(row.content)
    if size > max_text_bytes:
        raise LineError(line, "too_large", f"the text has {size} bytes, at most {max_text_bytes} are taken")
    return row


def content_bytes(content: str | list[dict[str, str]]) -> int:
    """Size of a content in UTF-8; roles are not counted."""
    texts = [content] if isinstance(content, str) else [message["content"] for message in content]
    return sum(len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")) for text in texts)


def _is_storable(text: str) -> bool:
    if "\0" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)
