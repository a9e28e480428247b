"""Contents in parts as one text, in the formats of several vendors' chat clients. Parts that are not text are refused by name."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from guardfleet.errors import ContentError
from guardfleet.rows.json_text import DEEPEST, Repeated
from guardfleet.rows.words import called, holds_words, is_remark, is_scalar, values_in

TEXTS = ("text", "input_text", "output_text", "summary_text", "reasoning_text")
NOT_JUDGED = {
    "image": "images", "image_url": "images", "input_image": "images", "image_file": "images", "inlineData": "images",
    "inline_data": "images", "audio": "recordings", "input_audio": "recordings", "audio_url": "recordings", "video": "videos",
    "video_url": "videos", "input_video": "videos", "file": "files", "input_file": "files", "fileData": "files",
    "file_data": "files", "document": "documents", "redacted_thinking": "redacted thoughts",
}  # fmt: skip
# Members that describe a message, a part or a call. They are not part of its words as long as they are scalars or objects of these.
ABOUT = frozenset({
    "id", "type", "name", "object", "status", "timestamp", "time", "date", "created", "created_at", "createdAt",
    "create_time", "update_time", "updated_at", "updatedAt", "lang", "language", "model", "provider", "finish_reason",
    "stop_reason", "stop_sequence", "tool_call_id", "tool_use_id", "call_id", "recipient", "channel", "author",
    "uuid", "parent", "parent_id", "user_id", "message_id", "conversation_id", "turn_id", "cache_control", "ttl",
    "signature", "thoughtSignature", "thought_signature", "usage",
    "system_fingerprint", "service_tier", "rating", "score", "label", "labels", "expires_at",
})  # fmt: skip


def text_of(content: object, where: str) -> str:
    """Return a string as it is, parts joined by newlines, and "" for null. Raises ContentError."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    return "\n".join(text for text in texts_of(content, where) if text)


def texts_of(content: object, where: str) -> Iterable[str]:
    """Return the text of each part of a list, or of a single part."""
    if isinstance(content, Mapping):
        return [_part(content, where)]
    if not isinstance(content, list | tuple):
        raise ContentError("wrong_type", f"{where} has content that is neither a string nor a list of parts")
    return [part if isinstance(part, str) else _part(part, where) for part in content]


def _part(part: object, where: str) -> str:
    if not isinstance(part, Mapping):
        raise ContentError("wrong_type", f"{where} has a part that is neither a string nor an object")
    refuse_repeated(part, where)
    kind = part.get("type")
    for name in (kind,) if kind else part:
        if isinstance(name, str) and name in NOT_JUDGED:
            raise ContentError("unsupported_content", f"{where} has a part {name!r}: {NOT_JUDGED[name]} cannot be judged")
    name = "text" if kind in TEXTS else kind or next((key for key in part if key in _READ), None)
    if not isinstance(name, str) or name not in _READ:
        raise ContentError("unsupported_content", f"{where} has a part {called(kind)}, which cannot be judged")
    read, members = _READ[name]
    refuse_unread(part, members, where)
    return read(part, where)


def refuse_repeated(value: object, where: str) -> None:
    """Raise ContentError for an object with repeated keys."""
    if isinstance(value, Repeated):
        raise ContentError("repeated_key", f"{where} has the member {called(min(value.names))} more than once")


def refuse_unread(value: Mapping[str, Any], read: Iterable[str], where: str) -> None:
    """Raise ContentError if a member that is not read holds words."""
    for key, inner in value.items():
        if key not in read and not _is_about(key, inner) and holds_words(inner):
            raise ContentError("unknown_member", f"{where} has a member {called(key)} with text in it, which would not be judged")


def _is_about(key: str, inner: object) -> bool:
    if key == "metadata":
        return True
    if isinstance(inner, Mapping):
        return key in ABOUT and all(not holds_words(of) or (name in ABOUT and is_remark(of)) for name, of in inner.items())
    return key in ABOUT and is_remark(inner)


def call_of(call: object, where: str) -> str:
    """Return a tool call as text: its name and its arguments, unchanged."""
    if not isinstance(call, Mapping):
        raise ContentError("wrong_type", f"{where} has a call that is not an object")
    refuse_repeated(call, where)
    within = next((name for name in _CALLS if isinstance(call.get(name), Mapping)), None)
    inner = call if within is None else call[within]
    if within is not None:
        refuse_unread(call, (within,), where)
        refuse_repeated(inner, where)
    refuse_unread(inner, _ARGUMENTS, where)
    name = inner.get("name")
    if not is_scalar(name):
        raise ContentError("wrong_type", f"{where} has a call whose name is not a string")
    given = [json_of(inner[key], where) for key in _ARGUMENTS if inner.get(key) is not None]
    said = [name if isinstance(name, str) else "", *given]
    return " ".join(["[tool call]", *filter(None, said)]) if any(said) else ""


def result_of(text: str, name: object = None) -> str:
    """Return a tool's result as a quotation."""
    if not text or text.isspace():
        return ""
    return f"[tool result{f' of {name}' if isinstance(name, str) and name else ''}]\n{text}"


def json_of(value: object, where: str) -> str:
    """Return a string as it is, anything else as JSON. Raises ContentError."""
    if isinstance(value, str):
        return value
    refuse_repeated(next((inner for inner in values_in(value) if isinstance(inner, Repeated)), None), where)
    try:
        return orjson.dumps(value, default=str).decode()
    except TypeError:  # lone surrogates, numbers beyond 64 bits, or too deep
        pass
    if _depth(value) > DEEPEST:
        raise ContentError("wrong_type", f"{where} has arguments nested deeper than {DEEPEST} levels")
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    except (TypeError, ValueError):
        raise ContentError("wrong_type", f"{where} has arguments that are not JSON") from None


def _depth(value: object) -> int:
    """Count levels of lists and objects, up to one more than DEEPEST."""
    level, depth = [value], 0
    while level and depth <= DEEPEST:
        depth += 1
        inner = [item for item in level if isinstance(item, Mapping | list | tuple)]
        level = [part for item in inner for part in (item.values() if isinstance(item, Mapping) else item)]
    return depth


def _string(key: str) -> Callable[[Mapping[str, Any], str], str]:
    def read(part: Mapping[str, Any], where: str) -> str:
        text = part.get(key)
        if text is not None and not isinstance(text, str):
            raise ContentError("wrong_type", f"{where} has a part whose {key} is not a string")
        return text or ""

    return read


def _thought(part: Mapping[str, Any], where: str) -> str:
    return "\n".join(filter(None, (text_of(part.get(key), where) for key in ("thinking", "reasoning", "text", "summary"))))


def _tool_result(part: Mapping[str, Any], where: str) -> str:
    return result_of(text_of(part.get("content"), where))


def _response(key: str) -> Callable[[Mapping[str, Any], str], str]:
    def read(part: Mapping[str, Any], where: str) -> str:
        inner = part.get(key)
        if not isinstance(inner, Mapping):
            raise ContentError("wrong_type", f"{where} has a function's response that is not an object")
        refuse_repeated(inner, where)
        refuse_unread(inner, ("response",), where)
        return result_of(json_of(inner.get("response"), where), inner.get("name"))

    return read


_CALLS = ("function", "custom", "functionCall", "function_call")  # members that may hold a call
_ARGUMENTS = ("arguments", "args", "input", "parameters")
# By the part's type, or by the member it has if it has no type: the reader, and the members that the reader reads.
_READ: Mapping[str, tuple[Callable[[Mapping[str, Any], str], str], tuple[str, ...]]] = {
    "text": (_string("text"), ("text",)),
    "refusal": (_string("refusal"), ("refusal",)),
    "thinking": (_thought, ("thinking", "text")),
    "reasoning": (_thought, ("reasoning", "text", "summary")),
    "tool_use": (call_of, _ARGUMENTS),
    "tool_call": (call_of, ("function", *_ARGUMENTS)),
    "tool_result": (_tool_result, ("content",)),
    "functionCall": (call_of, ("functionCall",)),
    "function_call": (call_of, ("function_call", *_ARGUMENTS)),
    "functionResponse": (_response("functionResponse"), ("functionResponse",)),
    "function_response": (_response("function_response"), ("function_response",)),
}
