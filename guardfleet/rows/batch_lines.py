"""Requests that stand in lines of batch files, OpenAI's and Gemini's: each takes what its route takes, and no words beside that."""

from collections.abc import Mapping
from typing import Any

from guardfleet.errors import ContentError
from guardfleet.rows.content_parts import refuse_repeated, text_of
from guardfleet.rows.conversations import CONVERSATIONS
from guardfleet.rows.metadata import kind_of
from guardfleet.rows.words import called, holds_words

MODERATIONS, COMPLETIONS = "/v1/moderations", "/v1/chat/completions"
FLAGGED = "unsafe"  # from which severity on a batch's answers are flagged
ASKED = ("input", "text", "prompt", *CONVERSATIONS)  # names under which a request has what is to be judged


def is_openais(value: Mapping[str, Any]) -> bool:
    """Whether a row is a line of OpenAI's: it has a `custom_id`, and a body or nothing else that is a row."""
    return "custom_id" in value and (isinstance(value.get("body"), Mapping) or value.keys().isdisjoint(("text", *CONVERSATIONS)))


def is_geminis(value: Mapping[str, Any]) -> bool:
    """Whether a row is a line of Gemini's: its request has contents."""
    return "request" in value and isinstance(value["request"], Mapping) and "contents" in value["request"]


def refuse_beside(value: Mapping[str, Any], where: str, read: str | None = None) -> None:
    """Raise ContentError where a name for what is to be judged, other than the one that is read, has words under it."""
    for name in ASKED:
        if name != read and name in value and holds_words(value[name]):
            raise ContentError("unknown_member", f"{where} has {called(name)} too, which would not be judged")


def request_of(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The members of the request in a line that matter here: `text` or `messages`. Raises ContentError."""
    if "response" in value and "body" not in value:
        raise ContentError("already_judged", "this is a line of a batch's output, it has a response and no request")
    url, body, method = value.get("url"), value.get("body"), value.get("method", "POST")
    if not isinstance(method, str) or method.upper() != "POST" or url not in (MODERATIONS, COMPLETIONS):
        raise ContentError("wrong_type", f"a batch line is a POST whose url is {MODERATIONS} or {COMPLETIONS}")
    if not isinstance(body, Mapping):
        raise ContentError("wrong_type", f"body is an object, this is {kind_of(body)}")
    refuse_repeated(body, "body")
    refuse_beside(value, "the line")
    name = "messages" if url == COMPLETIONS else "input"
    refuse_beside(body, "body", name)
    if body.get("flag_from", FLAGGED) != FLAGGED:  # the line's answer would be flagged otherwise than it asks for
        raise ContentError("unknown_member", f"flag_from counts in a request of its own: a batch flags from {FLAGGED} on")
    if body.get(name) is None:
        raise ContentError("missing_text", f"body has no {name}")
    asked = {key: inner for key, inner in body.items() if key not in ASKED}
    return asked | ({"messages": body[name]} if url == COMPLETIONS else {"text": input_text(body[name])})


def geminis_request_of(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same of a line of Gemini's: its `contents`. Raises ContentError."""
    request: Mapping[str, Any] = value["request"]
    refuse_repeated(request, "request")
    refuse_beside(value, "the line")
    refuse_beside(request, "request", "contents")
    return request


def input_text(given: object) -> str:
    """What a moderation's `input` is as one text: a string, a list of one, or the parts of one. Raises ContentError."""
    if isinstance(given, str):
        return given
    if not isinstance(given, list) or not given:
        raise ContentError("wrong_type", f"input is a string or a list of them, this is {kind_of(given)}")
    if all(isinstance(item, str) for item in given):
        if len(given) > 1:
            raise ContentError("wrong_type", f"one input a line: this one has {len(given)}, give each a line of its own")
        return str(given[0])
    if not all(isinstance(item, Mapping) for item in given):
        raise ContentError("wrong_type", "input is a string, a list of one string, or a list of text parts")
    return text_of(given, "input")
