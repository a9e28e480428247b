"""Conversations as token ids, through the model's own chat template.

The template is rendered once per shape of conversation with a marker in place of each content, and cut at the markers. The constant
parts are tokenised with control tokens; contents are tokenised with control tokens spelled out, so that no text can end the prompt,
and with lines that look like turns neutralised (`role_labels`). A cut keeps the space before a content and the newlines after it
with the content, the only places where byte-level BPE with Qwen's splitting rules gives the same ids as the whole prompt would.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from worker.engine.prompting.role_labels import Labels, labels_of

Message = Mapping[str, str]
Content = str | Sequence[Message]
ROLES = ("system", "user", "assistant")
POLICY = "policy"  # the role of a policy that a prompt shows; no message of a caller may have it
MARKER = "\ue000{}\ue001"  # private-use characters, which no template contains
MARKED = re.compile("\ue000(\\d+)\ue001")
SURROGATE = re.compile("[\ud800-\udfff]")
MAX_TURNS = 256
Turns = tuple[tuple[str, str], ...]


class InvalidConversationError(ValueError):
    """The messages cannot be rendered without the template silently dropping some of them."""


class FastTokenizer(Protocol):
    """The part of `tokenizers.Tokenizer` that is needed."""

    def encode_batch(  # noqa: D102
        self,
        input: Sequence[Any],  # noqa: A002
        is_pretokenized: bool = ...,
        add_special_tokens: bool = ...,
    ) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt ready for the model. `responds`: response mode (the last message is the assistant's)."""

    ids: tuple[int, ...]
    responds: bool


def messages_of(content: Content) -> Turns:
    """Return a text or messages as (role, content) pairs. Raises InvalidConversationError for what the template would lose.

    Qwen3Guard's template silently drops a leading assistant message, tool messages, and a system message that is not first. Judging
    such conversations would be a loophole.
    """
    if isinstance(content, str):
        return (("user", content),)
    turns: tuple[tuple[str, Any], ...] = tuple((message.get("role", ""), message.get("content")) for message in content)
    if not turns:
        raise InvalidConversationError("there are no messages")
    if len(turns) > MAX_TURNS:
        raise InvalidConversationError(f"{len(turns)} messages, at most {MAX_TURNS} are allowed")
    for at, (role, text) in enumerate(turns):
        if role not in ROLES:
            raise InvalidConversationError(f"message {at} has a role other than {', '.join(ROLES)}")
        if not isinstance(text, str):
            raise InvalidConversationError(f"message {at} has content that is not a string")
        if role == "system" and at > 0:
            raise InvalidConversationError(f"message {at} is a system message; only the first may be")
    if turns[0][0] == "assistant":
        raise InvalidConversationError("the first message is the assistant's; the guard needs the user's before it")
    if turns[-1][0] == "system":
        raise InvalidConversationError("the last message is the system's; there is nothing to judge")
    return turns


def is_blank(content: Content) -> bool:
    """Return whether there is nothing to judge: a blank text, or only blank messages in a valid conversation."""
    if isinstance(content, str):
        return not content.strip()
    texts = (message.get("content") for message in content)
    if any(not isinstance(text, str) or text.strip() for text in texts):
        return False
    try:
        messages_of(content)
    except InvalidConversationError:
        return False
    return True


def readable(text: str) -> str:
    """Return the text as Unicode that the tokenizer accepts: a surrogate becomes U+FFFD, and the length stays the same."""
    return text if text.isascii() else SURROGATE.sub("\ufffd", text)


class Prompter:
    """Renders and tokenises conversations for one model. Thread-safe once built.

    `render` turns messages into the model's prompt; `plain` spells control tokens out, `control` keeps them. `neutralises`: no
    text can add a turn; otherwise a text with the template's labels does, as in the model's published use. `labels`: what no text
    may imitate, if it is more than what begins turns. `trims`: the roles whose contents the template strips of white space.
    """

    def __init__(
        self,
        render: Any,
        *,
        plain: FastTokenizer,
        control: FastTokenizer,
        neutralises: bool = True,
        labels: Labels | None = None,
        trims: frozenset[str] = frozenset(),
    ) -> None:
        self._render, self._plain, self._control, self._trims = render, plain, control, trims
        self.labels, self.neutralises = labels or labels_of(render), neutralises
        self._pieces = functools.lru_cache(maxsize=1024)(self._cut)
        self.in_segments = True

    def check(self, conversations: Sequence[Turns]) -> bool:
        """Return whether segments give the same ids as whole prompts; if not, whole prompts are tokenised from now on.

        True for byte-level BPE with Qwen's splitting rules. A tokenizer that joins characters across a cut would make other prompts
        than the model was trained on.
        """
        self.in_segments = [encoded.ids for encoded in self.encode(conversations)] == [
            self._whole(turns) for turns in conversations
        ]
        return self.in_segments

    def shown_whole(self, turns: Turns) -> Turns:
        """Return the turns. Raises InvalidConversationError if the template does not show each of them."""
        self._pieces(tuple(role for role, _ in turns))
        return turns

    def encode(self, conversations: Sequence[Turns]) -> list[Encoded]:
        """Return the token ids of each conversation, in order; only for those that `shown_whole` accepts."""
        if self.in_segments:
            return self._encode_segments(conversations)
        return [
            Encoded(self._whole(turns), turns[-1][0] == "assistant") if self._is_plain(turns) else self._encode_segments([turns])[0]
            for turns in conversations
        ]

    def _whole(self, turns: Turns) -> tuple[int, ...]:
        rendered = self._render([{"role": role, "content": self._shown(text)} for role, text in turns])
        return tuple(self._control.encode_batch([rendered], add_special_tokens=False)[0].ids)

    def _is_plain(self, turns: Turns) -> bool:
        """Return whether no content holds a control token, which could end a prompt that is tokenised as a whole."""
        texts = [self._shown(text) for _, text in turns]
        plain, control = (
            [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
            for tokenizer in (self._plain, self._control)
        )
        return plain == control

    def _encode_segments(self, conversations: Sequence[Turns]) -> list[Encoded]:
        """Tokenise the contents of all conversations in one call."""
        shapes = [tuple(role for role, _ in turns) for turns in conversations]
        segments = [
            "".join(part if isinstance(part, str) else self._placed(*turns[part]) for part in segment)
            for turns, shape in zip(conversations, shapes, strict=True)
            for segment in self._pieces(shape).segments
        ]
        distinct = list(dict.fromkeys(segments))  # all texts of a call may have one policy
        encoded = dict(zip(distinct, self._plain.encode_batch(distinct, add_special_tokens=False), strict=True))
        ids = iter([encoded[segment].ids for segment in segments])
        return [self._join(shape, ids) for shape in shapes]

    def _placed(self, role: str, text: str) -> str:
        shown = self._shown(text)
        return shown.strip() if role in self._trims else shown

    def length(self, text: str) -> int:
        """Return the number of tokens of a content on its own."""
        return len(self._plain.encode_batch([self._shown(text)], add_special_tokens=False)[0].ids)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the characters of each token of a content on its own; a character of several tokens belongs to each."""
        return list(self._plain.encode_batch([self._shown(text)], add_special_tokens=False)[0].offsets)

    def _shown(self, text: str) -> str:
        """Return the text as the model sees it; it has the same length in characters."""
        return self.labels.neutralised(readable(text)) if self.neutralises else readable(text)

    def _join(self, shape: tuple[str, ...], contents: Any) -> Encoded:
        cut = self._pieces(shape)
        out = list(cut.constants[0])
        for constant in cut.constants[1:]:
            out += next(contents)
            out += constant
        return Encoded(tuple(out), shape[-1] == "assistant")

    def _cut(self, shape: tuple[str, ...]) -> "_Cut":
        try:
            marked = self._render([{"role": role, "content": MARKER.format(at)} for at, role in enumerate(shape)])
        except Exception as error:  # raised by the template; it costs only texts of this shape
            raise InvalidConversationError(f"the model's template does not accept {'/'.join(shape)}") from error
        parts = MARKED.split(marked)
        texts, order = list(parts[0::2]), [int(at) for at in parts[1::2]]
        if sorted(order) != list(range(len(shape))):
            raise InvalidConversationError(f"the model's template does not show every message of {'/'.join(shape)}")
        segments: list[list[str | int]] = []
        constants = [texts[0]]
        for i, at in enumerate(order):
            before = constants[-1][len(constants[-1].rstrip(" ")) :]
            after = texts[i + 1][: len(texts[i + 1]) - len(texts[i + 1].lstrip("\n"))]
            rest = texts[i + 1][len(after) :]
            constants[-1] = constants[-1][: len(constants[-1]) - len(before)]
            if segments and not constants[-1]:  # nothing but blank lines since the last content: nowhere to cut
                segments[-1] += [before, at, after]
                constants[-1] = rest
            else:
                segments.append([before, at, after])
                constants.append(rest)
        encoded = self._control.encode_batch(constants, add_special_tokens=False)
        return _Cut(tuple(tuple(encoding.ids) for encoding in encoded), tuple(tuple(segment) for segment in segments))


@dataclass(frozen=True, slots=True)
class _Cut:
    """A rendered shape: `constants` surround `segments`; a segment's parts are literal text or the index of a message."""

    constants: tuple[tuple[int, ...], ...]
    segments: tuple[tuple[str | int, ...], ...]
