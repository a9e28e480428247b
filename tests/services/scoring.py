"""A detector without a model: it says of a text the scores that are written in it, `[[0.83]]` for its first label.

`[[short]]` is too short to say, `[[fail]]` has no answer. A text of several marks is one of several windows of ten characters.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from guardfleet.domain.verdict import Model
from worker.engine.interfaces import Answer, Pieces, Prepared, Synchronous, Unjudgeable
from worker.engine.prompting.prompt import Content
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.prompting.windows import Coverage

MARK = re.compile(r"\[\[([^\]]*)\]\]")
WINDOW = 10


@dataclass(frozen=True)
class Scored:
    said: str
    n_tokens: int = 5


class ScoringBackend(Synchronous):
    device, budget_tokens, max_rows, padded = "none", 1000, 50, True

    def __init__(self, labels: tuple[str, ...] = ("generated", "human"), neutral: str | None = "human", name: str = "ai-text"):
        self.model = Model("scored", "1" * 40, "marks", True, name, labels, neutral)

    def prepare(
        self, contents: Sequence[Content], coverage: Coverage | None = None, policy: PromptPolicy | None = None
    ) -> list[Prepared | Pieces | Unjudgeable]:
        return [self._prepare(content if isinstance(content, str) else content[-1]["content"]) for content in contents]

    def _prepare(self, text: str) -> Prepared | Pieces | Unjudgeable:
        marks = MARK.findall(text)
        if len(marks) > 1:
            spans = [(at * WINDOW, (at + 1) * WINDOW) for at in range(len(marks))]
            return Pieces([Scored(mark) for mark in marks], spans, {})
        return Unjudgeable("too_long", "it says so") if marks == ["fail"] else Scored(marks[0] if marks else "short")

    def run(self, batch: Sequence[Prepared]) -> list[Answer]:
        return [self._answer(row.said) for row in batch if isinstance(row, Scored)]

    def _answer(self, said: str) -> Answer:
        if said == "short":
            return Answer("", is_too_short=True)
        first = float(said)
        others = len(self.model.labels) - 1
        return Answer("", scores=(first, *[(1 - first) / others] * others))

    def memory_bytes(self) -> int:
        return 0

    def memory_total_bytes(self) -> int:
        return 0
