"""What a worker does with texts that are too long for one prompt: the rule, and how many of a file's texts it concerns."""

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from guardfleet.cli.doctor.findings import Caution
from guardfleet.errors import LineError
from guardfleet.settings import Settings

if TYPE_CHECKING:
    from worker.engine.interfaces import Unjudgeable
    from worker.engine.prompting.prompt import Encoded
    from worker.engine.rendering import LongPrompt

AT_ONCE = 64  # texts tokenised in one call
TOO_LONG = "too_long"
PARTS = {"head": "only its beginning is judged", "tail": "only its end is judged", "ends": "only its beginning and end are judged"}


@dataclass
class Measured:
    """Counts of texts; `is_all`: no more were left when the time was over."""

    texts: int = 0
    refused: int = 0  # lines
    long: int = 0
    turns: int = 0  # conversations that lose their oldest turns
    most: int = 0  # windows of one text
    errors: Counter[str] = field(default_factory=Counter)
    is_all: bool = True

    def add(self, rendered: "Encoded | LongPrompt | Unjudgeable") -> None:
        """Count one text."""
        from worker.engine.interfaces import Unjudgeable
        from worker.engine.rendering import LongPrompt

        self.texts += 1
        if isinstance(rendered, Unjudgeable):
            self.errors[rendered.code] += 1
        elif isinstance(rendered, LongPrompt):
            self.turns += "turns_left_out" in rendered.notes
            self.long += bool(rendered.spans) and "turns_left_out" not in rendered.notes
            self.most = max(self.most, len(rendered.spans))


class LongTexts:
    """The rule for one model and these settings."""

    def __init__(self, settings: Settings, tokenizer: Any, max_positions: int) -> None:
        from worker.engine.model.loading import prompter_of
        from worker.engine.prompting.windows import Policy
        from worker.engine.rendering import Renderer

        self._settings = settings
        asked, tuning = settings.engine, settings.tuning
        self._policy = Policy(asked.window_tokens, tuning.window_overlap, tuning.max_windows, asked.long_texts)
        prompter = prompter_of(tokenizer, neutralises=asked.role_labels == "neutralise")
        self._renderer = Renderer(prompter, max_positions=max_positions, policy=self._policy)

    def said(self, files: Sequence[str], deadline: float) -> str | Caution:
        """Say the rule, and what it does with the texts of files, as many as can be read before `deadline` (monotonic)."""
        if files:
            return self._judged(self._measured(files, deadline))
        is_asked = "window_tokens" in self._settings.engine.model_fields_set  # the default is meant to be cut
        if is_asked and self._renderer.max_prompt_tokens < self._policy.tokens:
            fix = f"GUARDFLEET_ENGINE__WINDOW_TOKENS={self._renderer.max_prompt_tokens} says what is so."
            return Caution(f"{self._rule()}; windows of {self._policy.tokens:,} tokens are longer than the model takes", fix)
        return self._rule()

    def _rule(self) -> str:
        room = self._renderer.room()
        part = PARTS.get(self._policy.coverage)
        if part:
            return f"a text of more than {room.single:,} tokens does not fit into a window of {room.prompt:,}, and {part}"
        return (
            f"a text of more than {room.single:,} tokens is judged in windows of {room.prompt:,}, the policy included; one of more "
            f"than {room.all_windows:,} (over {self._policy.most} windows) is the error {TOO_LONG}"
        )

    def _judged(self, found: Measured) -> str | Caution:
        whole = f"of {found.texts:,} texts" if found.is_all else f"of the first {found.texts:,} texts (more were not read in time)"
        lines = f"; {found.refused:,} lines are refused" if found.refused else ""
        if not (found.long or found.turns or found.errors):
            return f"{whole}, all fit into one window of {self._renderer.max_prompt_tokens:,} tokens{lines}"
        parts = [f"{found.long:,} are longer than a window" + (f" (up to {found.most} of them)" if found.most > 1 else "")]
        parts += [f"{found.turns:,} conversations lose their oldest turns"] * bool(found.turns)
        parts += [f"{n:,} would be the error {code}" for code, n in sorted(found.errors.items())]
        return Caution(f"{whole}, {', '.join(parts)}{lines}; {self._rule()}")

    def _measured(self, files: Sequence[str], deadline: float) -> Measured:
        from producer.sources import Inputs

        found = Measured()
        rows = self._contents(Inputs(list(files), max_text_bytes=self._settings.intake.max_text_bytes), found)
        while batch := list(itertools.islice(rows, AT_ONCE)):
            for rendered in self._renderer(batch):
                found.add(rendered)
            if time.monotonic() > deadline:
                found.is_all = next(rows, None) is None
                break
        return found

    def _contents(self, inputs: Any, found: Measured) -> Iterator[Any]:
        for _, row in inputs.rows():
            if isinstance(row, LineError):
                found.refused += 1
            else:
                yield row.content
