"""Conversations in their writers' formats, as turns for the guard model: docs/rows.md has the mapping.

The guard's template knows one leading system message, users and assistants, and silently drops anything else. So every word is
moved into such a turn, or the member that holds it is refused by name; nothing is dropped silently.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from guardfleet.errors import ContentError
from guardfleet.rows.content_parts import call_of, refuse_repeated, refuse_unread, result_of, text_of, texts_of
from guardfleet.rows.json_text import JsonError, parse
from guardfleet.rows.words import called

Turn = dict[str, str]
CONVERSATIONS = ("messages", "conversations", "conversation", "contents")  # members that may hold a conversation instead of a text
OTHERS = CONVERSATIONS[1:]  # also other tools' names for ids and titles: beside a text, what is no list is metadata
PLAIN = ("system", "user", "assistant")
ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "model": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "bing": "assistant", "bard": "assistant", "ai": "assistant", "chatbot": "assistant",
    "tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool", "tool_response": "tool", "tool_result": "tool",
    "function_call": "call", "tool_call": "call",
}  # fmt: skip
THOUGHTS = ("reasoning_content", "reasoning", "thinking")
CONTENTS = ("content", "value", "text", "parts", "content_blocks")
READ = frozenset({"role", "from", *THOUGHTS, *CONTENTS, "refusal", "audio", "tool_calls", "function_call"})


def turns_of(messages: object) -> list[Turn]:
    """Return messages as turns of `role` and `content`, the last of which is judged. Raises ContentError.

    `messages` may also be the JSON text of a list, as in tables.
    """
    messages = listed(messages)
    if not isinstance(messages, list | tuple) or not messages:
        raise ContentError("wrong_type", "messages must be a list of at least one message")
    return plain(messages) or _shown([_turn(message, f"message {at}") for at, message in enumerate(messages)])


def plain(messages: Sequence[Any]) -> list[Turn] | None:
    """Return the messages if the guard can be shown them unchanged and the last is not blank; else None."""
    turns: list[Turn] = []
    for message in messages:
        if type(message) is not dict or len(message) != 2:  # noqa: PLR2004 - role and content
            return None
        role, content = message.get("role"), message.get("content")
        if type(content) is not str or role not in PLAIN or (role == "system" and turns):
            return None
        turns.append({"role": role, "content": content})
    if not turns or turns[0]["role"] == "assistant" or role == "system" or not content or content.isspace():
        return None
    return turns


def is_blank(content: str | list[Turn]) -> bool:
    """Return whether there is nothing to judge."""
    if isinstance(content, str):
        return not content or content.isspace()
    return all(is_blank(turn["content"]) for turn in content)


def listed(messages: object) -> object:
    """Return the messages, parsed if a table holds them as JSON text. Raises ContentError."""
    if not isinstance(messages, str):
        return messages
    try:
        return parse(messages.encode("utf-8", "surrogatepass"))
    except JsonError:
        raise ContentError("wrong_type", "messages is a string that is not JSON") from None


def _turn(message: object, where: str) -> Turn:
    if not isinstance(message, Mapping):
        raise ContentError("wrong_type", f"{where} is not an object")
    refuse_repeated(message, where)
    refuse_unread(message, READ, where)
    role, text = _role(message, where), _text(message, where)
    if role == "tool":
        return {"role": "user", "content": result_of(text, message.get("name"))}
    if role == "call":
        return {"role": "assistant", "content": f"[tool call] {text}" if text else ""}
    return {"role": role, "content": text}


def _role(message: Mapping[str, Any], where: str) -> str:
    given = {str(message[key]).strip().lower() for key in ("role", "from") if message.get(key) is not None}
    if not given and "parts" in message:
        return "user"  # Gemini omits the role
    if len(given) != 1:
        raise ContentError("unknown_role", f"{where} has {'two roles' if given else 'no role'}")
    (role,) = given
    if role not in ROLES:
        raise ContentError("unknown_role", f"{where} has the role {called(role)}; known are {', '.join(ROLES)}")
    return ROLES[role]


def _text(message: Mapping[str, Any], where: str) -> str:
    """Return all that the message says, each text once: writers often store it in two members."""
    said: list[str] = []
    for key in THOUGHTS:
        thought = text_of(message.get(key), where)
        if not is_blank(thought) and (shown := f"<think>\n{thought}\n</think>\n") not in said:
            said.append(shown)
    for key in CONTENTS:
        if isinstance(given := message.get(key), str):
            said.append(given)
        elif given is not None:
            said.append("\n".join(text for text in texts_of(given, where) if text))
    said.append(text_of(message.get("refusal"), where))
    said.append(_transcript(message.get("audio"), where))
    said += [call_of(call, where) for call in _calls(message)]
    return "\n".join(dict.fromkeys(text for text in said if text))


def _transcript(audio: object, where: str) -> str:
    if audio is None:
        return ""
    if not isinstance(audio, Mapping) or not audio.get("transcript"):
        raise ContentError("unsupported_content", f"{where} has audio without a transcript: audio cannot be judged")
    refuse_repeated(audio, where)
    refuse_unread(audio, ("transcript", "data", "format"), where)
    return text_of(audio["transcript"], where)


def _calls(message: Mapping[str, Any]) -> list[object]:
    found: list[object] = []
    for key in ("tool_calls", "function_call"):
        calls = message.get(key)
        if calls is not None:
            found += calls if isinstance(calls, list | tuple) else [calls]
    return found


def _shown(turns: list[Turn]) -> list[Turn]:
    """Return the turns, up to the last that is not blank, in an order that the template shows completely."""
    if is_blank(turns):
        return turns
    while is_blank(turns[-1]["content"]):
        turns.pop()
    out: list[Turn] = []
    for turn in turns:
        role, text = turn["role"], turn["content"]
        if role == "system" and len(out) == 1 and out[0]["role"] == "system":
            out[0]["content"] += f"\n\n{text}"
        elif role == "system" and out:
            out.append({"role": "user", "content": f"[system]\n{text}"})
        else:
            out.append({"role": role, "content": text})
    if out[-1]["role"] == "system":
        out[-1]["role"] = "user"
    if out[0]["role"] == "assistant":
        out.insert(0, {"role": "user", "content": ""})
    return out
