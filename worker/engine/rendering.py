"""Turn contents into prompts for a backend, or into the reason why one cannot be judged.

A conversation that is too long loses its oldest turns; a last turn that is too long on its own is judged in overlapping windows.
What was left out is noted, and ends up in the rationale.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from worker.engine.interfaces import Pieces, Prepared, Unjudgeable
from worker.engine.prompting.prompt import Content, Encoded, InvalidConversationError, Turns, messages_of
from worker.engine.prompting.role_labels import Labels
from worker.engine.prompting.windows import Coverage, Policy, Span, covered, cut, gaps

MAX_NEW_TOKENS = 128  # as in the model's own evaluation
MARGIN = 32  # for tokens that a piece may have more on its own than within its text, and for the answer's draft
CONTEXT_SHARE = 4  # at most this fraction of a window goes to the user's turn before a long response


@dataclass(frozen=True, slots=True)
class LongPrompt:
    """A content in pieces: a prompt for each with the characters of the last turn that it shows; and what was left out.

    Without spans it is a single prompt that shows everything, with notes.
    """

    prompts: list[Encoded]
    spans: list[Span]
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Room:
    """Tokens: of one prompt; of the longest text in a single prompt; of the longest text in as many windows as are allowed."""

    prompt: int
    single: int
    all_windows: int


class Prompts(Protocol):
    """What makes prompts of turns: `Prompter`, or one for a policy (`UnderPolicy`)."""

    @property
    def labels(self) -> Labels: ...  # noqa: D102

    @property
    def neutralises(self) -> bool: ...  # noqa: D102

    def shown_whole(self, turns: Turns) -> Turns: ...  # noqa: D102

    def encode(self, conversations: Sequence[Turns]) -> list[Encoded]: ...  # noqa: D102

    def length(self, text: str) -> int: ...  # noqa: D102

    def offsets(self, text: str) -> list[tuple[int, int]]: ...  # noqa: D102


class Renderer:
    """Tokenises for one model; safe to call from many threads."""

    def __init__(self, prompter: Prompts, *, max_positions: int, policy: Policy) -> None:
        self._prompter, self._policy = prompter, policy
        self.max_prompt_tokens = min(max_positions - MAX_NEW_TOKENS, policy.tokens)

    def room(self) -> Room:
        """Return how long a text may be, to a few tokens: pieces of a text may have more than the text has."""
        (frame,) = self._encoded([(("user", ""),)])
        single = self.max_prompt_tokens - len(frame.ids)
        size = single - MARGIN
        step = size - max(1, min(self._policy.overlap, size // 2))
        return Room(self.max_prompt_tokens, single, size + (self._policy.most - 1) * step)

    def __call__(self, contents: Sequence[Content], coverage: Coverage | None = None) -> list[Encoded | LongPrompt | Unjudgeable]:
        """Return the prompt or prompts of each content, in order, all tokenised in one call.

        `coverage`: how much of long contents is judged; None: as the policy says.
        """
        coverage = coverage or self._policy.coverage
        out: list[Encoded | LongPrompt | Unjudgeable | None] = [None] * len(contents)
        prompter = self._prompter
        usable: list[tuple[int, Turns]] = []
        for at, content in enumerate(contents):
            try:
                usable.append((at, prompter.shown_whole(messages_of(content))))
            except InvalidConversationError as error:
                out[at] = _invalid(error)
        for (at, turns), encoded in zip(usable, prompter.encode([turns for _, turns in usable]), strict=True):
            try:
                fitted = encoded if len(encoded.ids) <= self.max_prompt_tokens else self._shortened(turns, coverage)
            except InvalidConversationError as error:  # the template accepts all of the turns, but not those that are kept
                fitted = _invalid(error)
            out[at] = self._noted(fitted, sum(prompter.labels.count(text) for _, text in turns))
        return [row for row in out if row is not None]

    def _noted(self, fitted: Encoded | LongPrompt | Unjudgeable, n_labels: int) -> Encoded | LongPrompt | Unjudgeable:
        """Add a note on lines that look like turns."""
        if not n_labels or isinstance(fitted, Unjudgeable):
            return fitted
        notes: dict[str, Any] = {"role_labels": n_labels}
        if self._prompter.neutralises:
            notes["role_labels_neutralised"] = True
        if isinstance(fitted, Encoded):
            return LongPrompt([fitted], [], notes)
        return replace(fitted, notes={**fitted.notes, **notes})

    def _shortened(self, turns: Turns, coverage: Coverage) -> LongPrompt | Unjudgeable:
        """Drop the oldest turns if that is enough; otherwise split the last turn into windows."""
        # If no turn is a user's, the response answers a system message.
        first = (
            len(turns) - 1 if turns[-1][0] == "user" else max((i for i, (role, _) in enumerate(turns) if role == "user"), default=0)
        )
        lengths = [self._prompter.length(text) for _, text in turns] if first else []  # tokenised for nothing otherwise
        for begin in range(1, first + 1):
            if turns[begin][0] != "user" or sum(lengths[begin:]) > self.max_prompt_tokens:
                continue
            (encoded,) = self._encoded([turns[begin:]])
            if len(encoded.ids) <= self.max_prompt_tokens:
                return LongPrompt([encoded], [(0, len(turns[-1][1]))], {"turns_left_out": begin})
        return self._windows(turns, first, coverage)

    def _encoded(self, conversations: Sequence[Turns]) -> list[Encoded]:
        """Encode what is left of accepted turns. Raises InvalidConversationError if the template does not show all of that."""
        return self._prompter.encode([self._prompter.shown_whole(turns) for turns in conversations])

    def _windows(self, turns: Turns, first: int, coverage: Coverage) -> LongPrompt | Unjudgeable:
        notes: dict[str, Any] = {"turns_left_out": first} if first else {}
        role, text = turns[-1]
        context = turns[first:-1]
        room = self.max_prompt_tokens // CONTEXT_SHARE
        if context and sum(self._prompter.length(part) for _, part in context) > room:
            asked = context[0][1]
            kept = cut(self._prompter.offsets(asked), len(asked), size=room, overlap=1)[-1]
            if len(context) > 1:
                notes["turns_left_out"] = first + len(context) - 1
            context = ((context[0][0], asked[kept[0] :]),)
            notes["context_cut"] = kept[0]
        (frame,) = self._encoded([(*context, (role, ""))])
        size = self.max_prompt_tokens - len(frame.ids) - MARGIN
        if size <= 1:
            return Unjudgeable(
                "too_long", f"the policy and its frame alone take {len(frame.ids)} of {self.max_prompt_tokens} tokens"
            )
        every = cut(self._prompter.offsets(text), len(text), size=size, overlap=max(1, min(self._policy.overlap, size // 2)))
        spans = covered(every, coverage)
        if len(spans) > self._policy.most:
            return Unjudgeable("too_long", f"it needs {len(spans)} windows, at most {self._policy.most} are judged")
        left_out = gaps(spans, len(text))
        if left_out:
            notes["left_out"] = left_out
        prompts = self._encoded([(*context, (role, text[start:end])) for start, end in spans])
        return LongPrompt(prompts, spans, notes)


def _invalid(error: InvalidConversationError) -> Unjudgeable:
    return Unjudgeable("invalid_conversation", str(error))


def pieces_of(
    rendered: Encoded | LongPrompt | Unjudgeable, row_of: Callable[[Encoded], Prepared]
) -> Prepared | Pieces | Unjudgeable:
    """Prepare rows for a backend."""
    if isinstance(rendered, Unjudgeable):
        return rendered
    if isinstance(rendered, Encoded):
        return row_of(rendered)
    return Pieces([row_of(prompt) for prompt in rendered.prompts], rendered.spans, rendered.notes)
