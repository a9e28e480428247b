"""Greedy answers of a transformers model: left-padded batches, one prefill, then a token a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from guardfleet.verdict import Model
from worker.engine.contract import Answer, DeviceFullError, DeviceLostError, Prepared, Unjudgeable
from worker.engine.loading import LoadedModel
from worker.prompt import Content, Encoded, InvalidConversationError, messages_of

MAX_NEW_TOKENS = 128  # as in the model's own evaluation
LABELS = ("Safe", "Controversial", "Unsafe")  # in the order of Answer.probabilities
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A tokenised prompt."""

    ids: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.ids)


class GenerateBackend:
    """The engine's first inside: correct on every device that torch knows, and the reference for faster ones."""

    def __init__(self, loaded: LoadedModel, *, budget_tokens: int, max_text_tokens: int, max_rows: int = 256) -> None:
        self._network, self._tokenizer, self._prompter = loaded.network, loaded.tokenizer, loaded.prompter
        self._device = loaded.device
        self.model: Model = loaded.identity
        self.device = str(loaded.device)
        self.budget_tokens, self.max_rows = budget_tokens, max_rows
        self.max_prompt_tokens = min(loaded.max_positions - MAX_NEW_TOKENS, max_text_tokens)
        self._pad = loaded.tokenizer.pad_token_id or 0
        self._ends = torch.tensor(_end_ids(loaded), device=self._device)
        self._label_prefix, self._label_ids = label_tokens(loaded.tokenizer)

    def prepare(self, contents: Sequence[Content]) -> list[Prepared | Unjudgeable]:
        """Tokenise all contents in one call; unusable conversations and overlong prompts are told apart."""
        out: list[Prepared | Unjudgeable | None] = [None] * len(contents)
        usable: list[tuple[int, tuple[tuple[str, str], ...]]] = []
        for at, content in enumerate(contents):
            try:
                usable.append((at, messages_of(content)))
            except InvalidConversationError as error:
                out[at] = Unjudgeable("invalid_conversation", str(error))
        for (at, _), encoded in zip(usable, self._prompter.encode([turns for _, turns in usable]), strict=True):
            out[at] = self._admit(encoded)
        return [row for row in out if row is not None]

    def _admit(self, encoded: Encoded) -> Prepared | Unjudgeable:
        n = len(encoded.ids)
        if n > self.max_prompt_tokens:
            return Unjudgeable("too_long", f"{n} tokens with the policy, at most {self.max_prompt_tokens} are judged")
        return PromptRow(encoded.ids)

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared]) -> list[Answer]:
        """Greedy answers, with the label's probabilities read off the step that decides it."""
        rows = [row for row in batch if isinstance(row, PromptRow)]
        try:
            new_ids, probabilities = self._decode(rows)
        except torch.OutOfMemoryError as error:
            raise self._full() from error
        except RuntimeError as error:
            if any(sign in str(error) for sign in OUT_OF_MEMORY):
                raise self._full() from error
            self._probe(error)
            raise
        return [
            Answer(self._tokenizer.decode(ids, skip_special_tokens=True), chances, row.n_tokens, len(ids))
            for row, ids, chances in zip(rows, new_ids, probabilities, strict=True)
        ]

    def memory_bytes(self) -> int:
        """What torch has allocated on the GPU; 0 elsewhere."""
        return torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else 0

    def _decode(self, rows: Sequence[PromptRow]) -> tuple[list[list[int]], list[tuple[float, float, float] | None]]:
        longest = max(row.n_tokens for row in rows)
        input_ids = torch.full((len(rows), longest), self._pad)  # (rows, longest), padded on the left
        attention_mask = torch.zeros_like(input_ids)
        for i, row in enumerate(rows):
            input_ids[i, longest - row.n_tokens :] = torch.tensor(row.ids)
            attention_mask[i, longest - row.n_tokens :] = 1
        input_ids, attention_mask = input_ids.to(self._device), attention_mask.to(self._device)
        position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._network.config)
        steps: list[torch.Tensor] = []  # (rows,) each
        probabilities: list[tuple[float, float, float] | None] = [None] * len(rows)
        ended = torch.zeros(len(rows), dtype=torch.bool, device=self._device)
        for step in range(MAX_NEW_TOKENS):
            out = self._network(
                input_ids=input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits = out.logits[:, -1]  # (rows, vocabulary)
            if step == len(self._label_prefix):
                probabilities = self._label_probabilities(logits, steps)
            chosen = torch.where(ended, self._ends[0], logits.argmax(-1))
            steps.append(chosen)
            ended |= torch.isin(chosen, self._ends)
            if bool(ended.all()):
                break
            input_ids, position_ids = chosen[:, None], position_ids[:, -1:] + 1
            attention_mask = torch.nn.functional.pad(attention_mask, (0, 1), value=1)
        return [self._until_end(ids) for ids in torch.stack(steps, 1).tolist()], probabilities

    def _label_probabilities(self, logits: torch.Tensor, steps: list[torch.Tensor]) -> list[tuple[float, float, float] | None]:
        """Softmax over the three labels' first tokens, where the answer so far is the label's own beginning."""
        chances = logits[:, self._label_ids].float().softmax(-1).tolist()
        begun = torch.stack(steps, 1).tolist() if steps else [[] for _ in chances]
        return [tuple(c) if b == self._label_prefix else None for c, b in zip(chances, begun, strict=True)]

    def _until_end(self, ids: list[int]) -> list[int]:
        ends = set(self._ends.tolist())
        return ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))]

    def _full(self) -> DeviceFullError:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return DeviceFullError()

    def _probe(self, error: RuntimeError) -> None:
        """A CUDA error can spoil the context for good; ask it for something trivial."""
        if self._device.type != "cuda":
            return
        try:
            torch.cuda.synchronize(self._device)
            torch.ones(1, device=self._device).sum().item()
        except RuntimeError as lost:
            raise DeviceLostError(str(error).splitlines()[0]) from lost


def label_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The ids that every answer begins with, and the first id that tells each of `LABELS` apart.

    Raises ValueError when two labels begin alike: the probabilities would say nothing.
    """
    answers = [tokenizer(f"Safety: {label}\nCategories:", add_special_tokens=False)["input_ids"] for label in LABELS]
    shared = next(i for i, ids in enumerate(zip(*answers, strict=False)) if len(set(ids)) > 1)
    first = [ids[shared] for ids in answers]
    if len(set(first)) < len(LABELS):
        raise ValueError("two severity labels begin with the same token")
    return list(answers[0][:shared]), first


def _end_ids(loaded: LoadedModel) -> list[int]:
    configured = loaded.network.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return [end for end in several if end is not None] or [loaded.tokenizer.eos_token_id]
