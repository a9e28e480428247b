"""Prompt mode and response mode: what the prompts of each begin with, and what its answers look like."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from worker.engine.decoding.drafts import Drafts
from worker.engine.forward.geometry import Prefix
from worker.engine.forward.tree import Tree
from worker.engine.prompting.prompt import Content

PROBES: dict[bool, tuple[Content, ...]] = {  # conversations whose prompts show the common beginning of a mode's prompts
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


@dataclass(frozen=True, slots=True)
class Aside:
    """A question beside a draft: `tokens` that replace the draft's after the first `at`; empty if the draft says the same."""

    tokens: tuple[int, ...]
    at: int

    def read_at(self, draft: Tree) -> int:
        """Return where its answer is read, among the reads of a draft and its aside."""
        return len(draft.parents) if self.tokens else self.at


@functools.lru_cache(maxsize=64)
def beside(draft: Tree, question: tuple[int, ...]) -> Aside:
    """Return the part of a question that a drafted chain does not contain."""
    at = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(draft.tokens, question, strict=False)))
    return Aside(question[at:], at)


@dataclass(eq=False)
class Mode:
    """What a mode's prompts begin with, computed once; the answer drafted behind each, and what is asked beside it."""

    prefix: Prefix
    drafts: Drafts
    responds: bool
    question: tuple[int, ...]  # the beginning of an answer, behind which the probabilities of the categories are read
    learns: bool = True  # off if a benchmark or a test needs constant drafts

    def __post_init__(self) -> None:
        self.draft = self.drafts.chain()

    @property
    def aside(self) -> Aside:
        """The question beside the current draft."""
        return beside(self.draft, self.question)

    @property
    def n_drafted(self) -> int:
        """How many tokens are fed behind a prompt."""
        return len(self.draft.tokens) + len(self.aside.tokens)

    def observe(self, answer: Sequence[int], times: int = 1) -> None:
        """Learn from an answer, including its end token, that `times` rows have."""
        if self.learns:
            self.drafts.observe(answer, times)

    def redraft(self) -> None:
        """Use the likeliest answer as the draft from now on."""
        if self.learns:
            self.draft = self.drafts.chain()


def shared_beginning(prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Return the ids that all prompts begin with."""
    return tuple(column[0] for column in itertools.takewhile(lambda c: len(set(c)) == 1, zip(*prompts, strict=False)))
