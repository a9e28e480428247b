"""Lines of OpenAI's and Gemini's batch files as requests. A line may hold what its route accepts, and no other words."""

from collections.abc import Mapping
from typing import Any

from guardfleet.errors import ContentError
from guardfleet.rows.content_parts import refuse_repeated, text_of
from guardfleet.rows.conversations import CONVERSATIONS
from guardfleet.rows.metadata import kind_of
from guardfleet.rows.words import called, holds_words

MODERATIONS, COMPLETIONS = "/v1/moderations", "/v1/chat/completions"
FLAGGED = "unsafe"  # lowest severity that a batch's answers flag
ASKED = ("input", "text", "prompt", *CONVERSATIONS)  # member names under which a request holds what is to be judged


def is_openais(value: Mapping[str, Any]) -> bool:
    """Return whether a row is an OpenAI batch line: it has a `custom_id`, and a body or no other member of a row."""
    return "custom_id" in value and (isinstance(value.get("body"), Mapping) or value.keys().isdisjoint(("text", *CONVERSATIONS)))


def is_geminis(value: Mapping[str, Any]) -> bool:
    """Return whether a row is a Gemini batch line: its request has contents."""
    return "request" in value and isinstance(value["request"], Mapping) and "contents" in value["request"]


def refuse_beside(value: Mapping[str, Any], where: str, read: str | None = None) -> None:
    """Raise ContentError if a member that holds content, other than `read`, has words in it."""
    for name in ASKED:
        if name != read and name in value and holds_words(value[name]):
            raise ContentError("unknown_member", f"{where} has {called(name)} too, which would not be judged")


def request_of(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the members of a line's request that matter here: `text` or `messages`. Raises ContentError."""
    if "response" in value and "body" not in value:
        raise ContentError("already_judged", "this is a line of a batch's output: it has a response and no request")
    url, body, method = value.get("url"), value.get("body"), value.get("method", "POST")
    if not isinstance(method, str) or method.upper() != "POST" or url not in (MODERATIONS, COMPLETIONS):
        raise ContentError("wrong_type", f"a batch line must be a POST whose url is {MODERATIONS} or {COMPLETIONS}")
    if not isinstance(body, Mapping):
        raise ContentError("wrong_type", f"body must be an object, this is {kind_of(body)}")
    refuse_repeated(body, "body")
    refuse_beside(value, "the line")
    name = "messages" if url == COMPLETIONS else "input"
    refuse_beside(body, "body", name)
    if body.get("flag_from", FLAGGED) != FLAGGED:  # otherwise its answer would be flagged by another rule than it asks for
        raise ContentError("unknown_member", f"flag_from is for single requests: a batch always flags from {FLAGGED} on")
    if "detectors" in body or "detectors" in value:
        raise ContentError("unknown_member", "detectors is an option of the whole batch: a line's own would not be asked")
    if body.get(name) is None:
        raise ContentError("missing_text", f"body has no {name}")
    asked = {key: inner for key, inner in body.items() if key not in ASKED}
    return asked | ({"messages": body[name]} if url == COMPLETIONS else {"text": input_text(body[name])})


def geminis_request_of(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the members that matter of a Gemini line: its `contents`. Raises ContentError."""
    request: Mapping[str, Any] = value["request"]
    refuse_repeated(request, "request")
    refuse_beside(value, "the line")
    refuse_beside(request, "request", "contents")
    return request


def input_text(given: object) -> str:
    """Return a moderation's `input` as one text: a string, a list of one, or the parts of one. Raises ContentError."""
    if isinstance(given, str):
        return given
    if not isinstance(given, list) or not given:
        raise ContentError("wrong_type", f"input must be a string or a list of them, this is {kind_of(given)}")
    if all(isinstance(item, str) for item in given):
        if len(given) > 1:
            raise ContentError("wrong_type", f"a line has one input, this one has {len(given)}: give each a line of its own")
        return str(given[0])
    if not all(isinstance(item, Mapping) for item in given):
        raise ContentError("wrong_type", "input must be a string, a list of one string, or a list of text parts")
    return text_of(given, "input")
