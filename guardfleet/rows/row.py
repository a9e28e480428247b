"""An input row as a payload row, or as an error with its line number that says what is wrong and never quotes the row."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from guardfleet.errors import ContentError, LineError
from guardfleet.rows.batch_lines import COMPLETIONS, MODERATIONS, geminis_request_of, is_geminis, is_openais, request_of
from guardfleet.rows.columns import AS_NAMED, Columns
from guardfleet.rows.content_parts import refuse_repeated, refuse_unread, text_of
from guardfleet.rows.conversations import CONVERSATIONS, OTHERS, Turn, is_blank, listed, plain, turns_of
from guardfleet.rows.json_text import JsonError, Repeated, parse
from guardfleet.rows.metadata import kept, kind_of
from guardfleet.rows.payload import PayloadRow
from guardfleet.rows.refusals import REFUSED, refusal_of
from guardfleet.rows.row_ids import SeenIds, id_of, invented
from guardfleet.rows.words import called, holds_words, is_remark, is_scalar

__all__ = [
    "COMPLETIONS",
    "MODERATIONS",
    "SeenIds",
    "content_bytes",
    "is_row",
    "longest_line",
    "parse_line",
    "row_of",
    "take_line",
]

PLACED = frozenset({"id", "custom_id", "metadata", "method", "url", "key"})  # each has a meaning of its own, and is never the text
USED = PLACED | {"text", "body", "request", *CONVERSATIONS}
VERDICT = frozenset({"severity", "categories", "rationale"})  # members of one of our verdict objects
SYSTEM = ("system_instruction", "systemInstruction")  # beside Gemini's `contents`
# Members of a row that describe a text. Scalars in them may stand beside an empty text: they hide no text.
ABOUT = frozenset({
    "lang", "language", "locale", "label", "labels", "category", "categories", "source", "split", "author", "user",
    "username", "user_id", "author_id", "conversation_id", "thread_id", "parent_id", "post_id", "comment_id", "created",
    "created_at", "updated_at", "date", "time", "timestamp", "model", "score", "rating", "type", "kind",
    "country", "platform", "tags",
})  # fmt: skip


def longest_line(max_text_bytes: int) -> int:
    """Return the bytes of the longest line that can hold a text of this size: JSON escapes one byte as at most six."""
    return 6 * max_text_bytes + (1 << 16)


def parse_line(line: int, raw: bytes) -> Any:
    """Return the JSON value of a line. Raises LineError."""
    try:
        return parse(raw)
    except JsonError as error:
        raise LineError(line, error.code, str(error)) from None


def take_line(
    line: int, raw: bytes, *, max_text_bytes: int, url: str | None = None, columns: Columns = AS_NAMED
) -> PayloadRow | LineError:
    """Return a JSONL line as a row, or as its error. With `url`, a request to another URL is an error."""
    value: Any = None
    try:
        value = parse_line(line, raw)
        if type(value) is dict and REFUSED in value:
            return refusal_of(line, value[REFUSED])
        value = columns.placed(value)
        row: PayloadRow | LineError = row_of(line, value, max_text_bytes=max_text_bytes)
    except LineError as error:
        row = error.kept()
    if url is not None and isinstance(value, Mapping) and is_openais(value) and value.get("url", url) != url:
        row = LineError(line, "url_mismatch", f"this batch takes requests to {url} only", _known_id(line, value))
    return row


def is_row(value: object) -> bool:
    """Return whether the value is a row at all, usable or not: a text, or an object with any member of a row."""
    return isinstance(value, str) or (isinstance(value, Mapping) and not USED.isdisjoint(value))


def row_of(line: int, value: object, *, max_text_bytes: int) -> PayloadRow:
    """Convert a parsed row: a string, an object with a text or a conversation, or a batch line. Raises LineError."""
    try:
        row = _row(line, value)
    except ContentError as error:
        raise LineError(line, error.code, error.detail, _known_id(line, value)) from None
    size = content_bytes(row.content)
    if size > max_text_bytes:
        raise LineError(line, "too_large", f"the text has {size} bytes, more than the limit of {max_text_bytes}", row.id)
    return row


def content_bytes(content: str | list[Turn]) -> int:
    """Return the size of a content in UTF-8; roles are not counted."""
    if isinstance(content, str):
        return len(content) if content.isascii() else len(content.encode("utf-8", "surrogatepass"))
    return sum([content_bytes(message["content"]) for message in content])


def _row(line: int, value: object) -> PayloadRow:
    if type(value) is not dict:
        if isinstance(value, str):
            return PayloadRow(invented(line), value)
        if not isinstance(value, Mapping):
            raise ContentError("wrong_type", f"a row must be an object, this is {kind_of(value)}")
        if isinstance(value, Repeated):
            _refuse_repeated(value)
    if "custom_id" in value and is_openais(value):
        return PayloadRow(id_of(line, value["custom_id"]), _requested(value, "body", request_of(value)))
    if "request" in value and is_geminis(value):
        return PayloadRow(id_of(line, value.get("key")), _requested(value, "request", geminis_request_of(value)))
    row_id, content = id_of(line, value.get("id")), _content(value)
    given = value.get("metadata")
    return PayloadRow(row_id, content) if given is None else PayloadRow(row_id, content, *kept(given))


def _refuse_repeated(value: Repeated) -> None:
    """Raise ContentError for a repeated text, id or request; what is only passed through may repeat."""
    twice = sorted(value.names & (USED - {"metadata"}))
    if twice:
        raise ContentError("repeated_key", f"the member {twice[0]!r} occurs more than once")


def _requested(value: Mapping[str, Any], name: str, request: Mapping[str, Any]) -> str | list[Turn]:
    """Return the content of a line's request."""
    content = _content(request)
    if is_blank(content):
        _refuse_unseen(value, (name,))
    return content


def _content(value: Mapping[str, Any]) -> str | list[Turn]:
    if "rationale" in value and value.keys() >= VERDICT:
        raise ContentError("already_judged", f"this is a verdict: it has {', '.join(sorted(VERDICT))}")
    text, messages = value.get("text"), value.get("messages")
    if messages is None:
        if type(text) is str and text and not text.isspace() and value.keys().isdisjoint(OTHERS):
            return text  # the case of most rows
    elif text is None and type(messages) is list and value.keys().isdisjoint(OTHERS) and (turns := plain(messages)):
        return turns
    content, read = _looked_for(value)
    if is_blank(content):
        _refuse_unseen(value, read)
    return content


def _looked_for(value: Mapping[str, Any]) -> tuple[str | list[Turn], tuple[str, ...]]:
    """Return the content, and the members it was read from."""
    text = value.get("text")
    found = [name for name in OTHERS if isinstance(value.get(name), list | tuple)]  # the name is also used for other things
    if value.get("messages") is not None:
        found.insert(0, "messages")
    if text is not None and found:
        raise ContentError("missing_text", f"a row has either a text or {found[0]}, this one has both")
    if len(found) > 1:
        raise ContentError("missing_text", f"a row has one conversation, this one has {found[0]} and {found[1]}")
    if found:
        messages = listed(value[found[0]])
        system = [{"role": "system", "content": _instruction(value[name], name)} for name in SYSTEM if value.get(name) is not None]
        return turns_of([*system, *messages] if isinstance(messages, list | tuple) else messages), (found[0], *SYSTEM)
    if text is None:
        raise _no_text(value)
    if isinstance(text, bytes):
        return _decoded(text), ("text",)
    if not isinstance(text, str):
        raise ContentError("wrong_type", f"text must be a string, this is {kind_of(text)}")
    return text, ("text",)


def _instruction(given: object, name: str) -> str:
    if isinstance(given, Mapping) and "parts" in given:
        refuse_repeated(given, name)
        refuse_unread(given, ("parts", "role"), name)
        return text_of(given["parts"], name)
    return text_of(given, name)


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise ContentError("wrong_type", "text is bytes that are not UTF-8") from None


def _no_text(value: Mapping[str, Any]) -> ContentError:
    if "text" in value:
        return ContentError("missing_text", "the text is null")
    names = [called(key) for key in list(value)[:8]]
    found = f"this one has {', '.join(names)}" if names else "this one is empty"
    return ContentError("missing_text", f"a row has a text or messages, {found}")


def _refuse_unseen(value: Mapping[str, Any], read: tuple[str, ...]) -> None:
    """Raise ContentError if the text is empty and another member holds one: an empty text would be called safe unread."""
    for key, inner in value.items():
        is_known = key in read or key == "metadata" or (key in PLACED and is_scalar(inner)) or (key in ABOUT and is_remark(inner))
        if not is_known and holds_words(inner):
            raise ContentError(
                "unknown_member", f"the text is empty, and the member {called(key)} holds one that would not be judged"
            )


def _known_id(line: int, value: object) -> str | None:
    """Return the id of a row that is refused for another reason."""
    if not isinstance(value, Mapping):
        return None
    first, second = ("custom_id", "id") if is_openais(value) else ("id", "custom_id")
    given = value.get(first, value.get(second))
    with suppress(ContentError):
        return None if given is None else id_of(line, given)
    return None
