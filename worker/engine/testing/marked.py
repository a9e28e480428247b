"""An engine backend without a model, for load runs and fault tests. It judges by marks in the text and says so in its name.

`[[unsafe]]`, `[[controversial]]`, `[[babble]]` choose the answer. `[[doubt]]` is judged with low certainty and `[[overruled]]`
wrongly by the engine of this name, both as unsafe by one of another name. `[[rev:X]]` is unsafe for the revision X alone; the
revision `broken` cannot be opened. As a detector it finds `[[found]]`, its own `[[rev:X]]` and what is unsafe by the name alone,
has nothing to say of `[[babble]]`, and says `too_short` of texts with fewer than `min_tokens`. `[[raise]]` fails its batch;
`[[oom]]` fits in no batch of two; `[[alone-oom]]` in none at all; `[[lost]]` loses the device; `[[hang]]` hangs; `[[die]]` kills
the process.
"""

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from guardfleet.domain.verdict import GUARD, Model
from guardfleet.errors import ConfigurationError
from worker.engine.interfaces import (
    Answer,
    DeviceFullError,
    DeviceLostError,
    Pieces,
    Prepared,
    Synchronous,
    Unjudgeable,
    require_none,
)
from worker.engine.prompting.prompt import Content, InvalidConversationError, messages_of
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.prompting.windows import DEFAULT_POLICY, Coverage, Policy, covered, cut, gaps

SAFE = "Safety: Safe\nCategories: None"
ANSWERS = {
    "[[unsafe]]": ("Safety: Unsafe\nCategories: Violent", (0.02, 0.08, 0.9)),
    "[[controversial]]": ("Safety: Controversial\nCategories: Unethical Acts", (0.2, 0.7, 0.1)),
    "[[babble]]": ("I would rather talk about the weather.", None),
}
FIRST_THOUGHTS = {"[[doubt]]": ("Safety: Controversial\nCategories: Unethical Acts", (0.3, 0.5, 0.2))}
SECOND_THOUGHTS = dict.fromkeys(("[[doubt]]", "[[overruled]]"), ANSWERS["[[unsafe]]"])
NAME = "instant"
LABELS = ("clear", "found")  # of the instant detector; the first one finds nothing
FOUND, NOT_FOUND, DOUBTFUL = (0.0625, 0.9375), (0.96875, 0.03125), (0.5625, 0.4375)
REVISION, BROKEN = "1", "broken"
CHARS_PER_TOKEN = 4  # about as in byte-level BPE of English
ANSWER_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Marked:
    """A row of the instant engine: its length, and the text if it has marks."""

    n_tokens: int
    judged: str
    responds: bool


class InstantBackend(Synchronous):
    """Answers at once, or after `ms_per_batch`; deterministic."""

    padded = True

    def __init__(
        self,
        *,
        name: str = NAME,
        ms_per_batch: float = 0.0,
        budget_tokens: int = 65_536,
        max_rows: int = 512,
        policy: Policy = DEFAULT_POLICY,
        detector: str = GUARD,
        min_tokens: int = 0,
        revision: str | None = None,
    ) -> None:
        if revision == BROKEN:
            raise ConfigurationError(f"model {name!r} cannot be used: the revision {BROKEN!r} is there to fail.")
        labels = () if detector == GUARD else LABELS
        self.model = Model(name, revision or REVISION, "marks", True, detector, labels, labels[0] if labels else None)
        self._min_tokens = min_tokens
        own = f"[[rev:{self.model.revision}]]"
        self._finds = ("[[found]]", own, *(SECOND_THOUGHTS if name != NAME else ()))
        self._answers = ANSWERS | {own: ANSWERS["[[unsafe]]"]} | (FIRST_THOUGHTS if name == NAME else SECOND_THOUGHTS)
        self.device = "none"
        self.budget_tokens, self.max_rows = budget_tokens, max_rows
        self._pause_s, self._policy = ms_per_batch / 1000, policy

    def prepare(
        self, contents: Sequence[Content], coverage: Coverage | None = None, policy: PromptPolicy | None = None
    ) -> list[Prepared | Pieces | Unjudgeable]:
        """Estimate lengths and find marks."""
        require_none(policy, self.model)
        return [self._prepare(content, coverage or self._policy.coverage) for content in contents]

    def run(self, batch: Sequence[Prepared]) -> list[Answer]:
        """Do what the marks say, else answer safe."""
        if self._pause_s:
            time.sleep(self._pause_s)
        return [self._answer(row, len(batch)) for row in batch if isinstance(row, Marked)]

    def memory_bytes(self) -> int:
        """Return 0: it uses no memory."""
        return 0

    def memory_total_bytes(self) -> int:
        """Return 0: it has no device."""
        return 0

    def _prepare(self, content: Content, coverage: Coverage) -> Prepared | Pieces | Unjudgeable:
        if isinstance(content, str):
            n_chars, judged, responds = len(content), content, False
        else:
            try:
                turns = messages_of(content)
            except InvalidConversationError as error:
                return Unjudgeable("invalid_conversation", str(error))
            n_chars, judged, responds = sum(len(text) for _, text in turns), turns[-1][1], turns[-1][0] == "assistant"
        n_tokens = n_chars // CHARS_PER_TOKEN + 1
        if n_tokens <= self._policy.tokens:
            return Marked(n_tokens, judged if "[[" in judged else "", responds)
        return self._pieces(judged, coverage, responds=responds)

    def _pieces(self, judged: str, coverage: Coverage, *, responds: bool) -> Pieces | Unjudgeable:
        offsets = [(at, min(at + CHARS_PER_TOKEN, len(judged))) for at in range(0, len(judged), CHARS_PER_TOKEN)]
        overlap = min(self._policy.overlap, self._policy.tokens // 2)
        spans = covered(cut(offsets, len(judged), size=self._policy.tokens, overlap=overlap), coverage)
        if len(spans) > self._policy.most:
            return Unjudgeable("too_long", f"it needs {len(spans)} windows, at most {self._policy.most} are judged")
        rows: list[Prepared] = []
        for start, end in spans:
            piece = judged[start:end]
            rows.append(Marked((end - start) // CHARS_PER_TOKEN + 1, piece if "[[" in piece else "", responds))
        left_out = gaps(spans, len(judged))
        return Pieces(rows, spans, {"left_out": left_out} if left_out else {})

    def _answer(self, row: Marked, n_rows: int) -> Answer:
        raw, probabilities = SAFE, (0.98, 0.015, 0.005)
        if row.judged:
            _misbehave(row.judged, n_rows)
        if self.model.labels:
            return self._detected(row)
        if row.judged:
            raw, probabilities = next((said for mark, said in self._answers.items() if mark in row.judged), (raw, probabilities))  # type: ignore[assignment]
        raw = raw + "\nRefusal: No" if row.responds else raw
        return Answer(raw, probabilities, row.n_tokens, ANSWER_TOKENS, responds=row.responds)

    def _detected(self, row: Marked) -> Answer:
        if row.n_tokens < self._min_tokens:
            return Answer("", input_tokens=row.n_tokens, is_too_short=True)
        is_found = any(mark in row.judged for mark in self._finds)
        not_found = DOUBTFUL if "[[doubt]]" in row.judged else NOT_FOUND
        scores = None if "[[babble]]" in row.judged else FOUND if is_found else not_found
        return Answer("", input_tokens=row.n_tokens, scores=scores)


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
