"""From contents to prompts a backend takes, or the reason why one cannot be judged."""

from collections.abc import Sequence

from worker.engine.contract import Unjudgeable
from worker.prompt import Content, Encoded, InvalidConversationError, Prompter, messages_of

MAX_NEW_TOKENS = 128  # as in the model's own evaluation


class Renderer:
    """Tokenises for one model; safe to call from many threads."""

    def __init__(self, prompter: Prompter, *, max_positions: int, max_text_tokens: int) -> None:
        self._prompter = prompter
        self.max_prompt_tokens = min(max_positions - MAX_NEW_TOKENS, max_text_tokens)

    def __call__(self, contents: Sequence[Content]) -> list[Encoded | Unjudgeable]:
        """The prompt of each content, in order; all of them are tokenised in one call."""
        out: list[Encoded | Unjudgeable | None] = [None] * len(contents)
        usable: list[tuple[int, tuple[tuple[str, str], ...]]] = []
        for at, content in enumerate(contents):
            try:
                usable.append((at, messages_of(content)))
            except InvalidConversationError as error:
                out[at] = Unjudgeable("invalid_conversation", str(error))
        for (at, _), encoded in zip(usable, self._prompter.encode([turns for _, turns in usable]), strict=True):
            out[at] = self._admit(encoded)
        return [row for row in out if row is not None]

    def _admit(self, encoded: Encoded) -> Encoded | Unjudgeable:
        n = len(encoded.ids)
        if n > self.max_prompt_tokens:
            return Unjudgeable("too_long", f"{n} tokens with the policy, at most {self.max_prompt_tokens} are judged")
        return encoded
