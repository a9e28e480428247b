"""Prompts under one policy: conversations that begin with a turn of the role `POLICY`, which the template shows in its place.

The policy is tokenised as contents are, control tokens spelled out and section marks neutralised: it cannot end the prompt either.
"""

from collections.abc import Sequence

from worker.engine.prompting.prompt import POLICY, Encoded, Prompter, Turns
from worker.engine.prompting.role_labels import Labels


class UnderPolicy:
    """As `Prompter`, for conversations without the policy's turn. `text` None: as the template renders without a policy."""

    def __init__(self, prompter: Prompter, text: str | None) -> None:
        self._prompter = prompter
        self._before: Turns = () if text is None else ((POLICY, text),)

    @property
    def labels(self) -> Labels:
        """The template's labels and section marks."""
        return self._prompter.labels

    @property
    def neutralises(self) -> bool:
        """Whether texts lose them."""
        return self._prompter.neutralises

    def shown_whole(self, turns: Turns) -> Turns:
        """As `Prompter.shown_whole`."""
        self._prompter.shown_whole((*self._before, *turns))
        return turns

    def encode(self, conversations: Sequence[Turns]) -> list[Encoded]:
        """As `Prompter.encode`."""
        return self._prompter.encode([(*self._before, *turns) for turns in conversations])

    def length(self, text: str) -> int:
        """As `Prompter.length`."""
        return self._prompter.length(text)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """As `Prompter.offsets`."""
        return self._prompter.offsets(text)
