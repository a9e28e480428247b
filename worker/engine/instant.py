"""An engine backend that runs no model: for load runs and fault tests. It judges by marks in the text and says so in its name.

`[[unsafe]]`, `[[controversial]]`, `[[babble]]` choose the answer; `[[raise]]` fails its batch; `[[oom]]` fits in no batch of two;
`[[alone-oom]]` in none at all; `[[lost]]` loses the device; `[[hang]]` hangs; `[[die]]` kills the process.
"""

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from guardfleet.verdict import Model
from worker.engine.contract import Answer, DeviceFullError, DeviceLostError, Prepared, Unjudgeable
from worker.prompt import Content, InvalidConversationError, messages_of

SAFE = "Safety: Safe\nCategories: None"
ANSWERS = {
    "[[unsafe]]": ("Safety: Unsafe\nCategories: Violent", (0.02, 0.08, 0.9)),
    "[[controversial]]": ("Safety: Controversial\nCategories: Unethical Acts", (0.2, 0.7, 0.1)),
    "[[babble]]": ("I would rather talk about the weather.", None),
}
BYTES_PER_TOKEN = 4  # about what a byte-level BPE makes of English
ANSWER_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Marked:
    """A row of the instant engine: its length, and the text's marks where it has any."""

    n_tokens: int
    judged: str
    responds: bool


class InstantBackend:
    """Answers at once, or after `ms_per_batch`; deterministic."""

    padded = True

    def __init__(
        self, *, ms_per_batch: float = 0.0, budget_tokens: int = 65_536, max_rows: int = 512, max_tokens: int = 30_000
    ) -> None:
        self.model = Model("instant", "1", "marks", is_demo=True)
        self.device = "none"
        self.budget_tokens, self.max_rows = budget_tokens, max_rows
        self._pause_s, self._max_tokens = ms_per_batch / 1000, max_tokens

    def prepare(self, contents: Sequence[Content]) -> list[Prepared | Unjudgeable]:
        """Estimate lengths and find marks."""
        return [self._prepare(content) for content in contents]

    def run(self, batch: Sequence[Prepared]) -> list[Answer]:
        """Do what the marks say, else answer safe."""
        if self._pause_s:
            time.sleep(self._pause_s)
        return [self._answer(row, len(batch)) for row in batch if isinstance(row, Marked)]

    def memory_bytes(self) -> int:
        """None is used."""
        return 0

    def _prepare(self, content: Content) -> Prepared | Unjudgeable:
        if isinstance(content, str):
            n_bytes, judged, responds = len(content), content, False
        else:
            try:
                turns = messages_of(content)
            except InvalidConversationError as error:
                return Unjudgeable("invalid_conversation", str(error))
            n_bytes, judged, responds = sum(len(text) for _, text in turns), turns[-1][1], turns[-1][0] == "assistant"
        n_tokens = n_bytes // BYTES_PER_TOKEN + 1
        if n_tokens > self._max_tokens:
            return Unjudgeable("too_long", f"{n_tokens} tokens, at most {self._max_tokens} are judged")
        return Marked(n_tokens, judged if "[[" in judged else "", responds)

    def _answer(self, row: Marked, n_rows: int) -> Answer:
        raw, probabilities = SAFE, (0.98, 0.015, 0.005)
        if row.judged:
            _misbehave(row.judged, n_rows)
            raw, probabilities = next((ANSWERS[mark] for mark in ANSWERS if mark in row.judged), (raw, probabilities))  # type: ignore[assignment]
        return Answer(raw + "\nRefusal: No" if row.responds else raw, probabilities, row.n_tokens, ANSWER_TOKENS)


def _misbehave(judged: str, n_rows: int) -> None:
    if "[[raise]]" in judged:
        raise ValueError("a marked row")
    if "[[alone-oom]]" in judged or ("[[oom]]" in judged and n_rows > 1):
        raise DeviceFullError
    if "[[lost]]" in judged:
        raise DeviceLostError
    if "[[hang]]" in judged:
        threading.Event().wait()
    if "[[die]]" in judged:
        os.kill(os.getpid(), signal.SIGKILL)
