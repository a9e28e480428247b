"""Prompt mode and response mode: what the prompts of each begin with, and what the answers of each look like."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from worker.engine.attention import Prefix
from worker.engine.drafts import Drafts
from worker.prompt import Content

PROBES: dict[bool, tuple[Content, ...]] = {  # conversations whose prompts show what a mode's prompts begin with
    False: (
        "a",
        "Zwei\n",
        [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}, {"role": "user", "content": "z"}],
    ),
    True: (
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"role": "system", "content": "?"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}],
    ),
}


@dataclass(eq=False)
class Mode:
    """What prompts begin with, computed once, and the answer that is drafted behind each of them."""

    prefix: Prefix
    drafts: Drafts
    responds: bool
    learns: bool = True  # off where a benchmark or a test wants the same drafts throughout

    def __post_init__(self) -> None:
        self.draft = self.drafts.chain()

    def observe(self, answer: Sequence[int]) -> None:
        """Learn from an answer, its end token included."""
        if self.learns:
            self.drafts.observe(answer)

    def redraft(self) -> None:
        """Draft the likeliest answer from now on."""
        if self.learns:
            self.draft = self.drafts.chain()


def shared_beginning(prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The ids that all prompts begin with."""
    return tuple(column[0] for column in itertools.takewhile(lambda c: len(set(c)) == 1, zip(*prompts, strict=False)))
