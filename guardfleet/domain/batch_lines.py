"""Lines of OpenAI's batch files: each takes what the route that it names takes."""

from collections.abc import Mapping
from typing import Any

from guardfleet.domain.metadata import kind_of
from guardfleet.domain.parts import refuse_repeated, text_of
from guardfleet.errors import ContentError

MODERATIONS, COMPLETIONS = "/v1/moderations", "/v1/chat/completions"


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
    asked = {key: inner for key, inner in body.items() if key not in ("input", "messages", "text")}
    if url == COMPLETIONS:
        return asked | {"messages": body.get("messages")}
    return asked | {"text": None if body.get("input") is None else input_text(body["input"])}


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
