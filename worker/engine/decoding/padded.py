"""Greedy answers of a transformers model: left-padded batches, one prefill, then a token per step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from guardfleet.domain.verdict import Model
from worker.engine.decoding.logits import LabelTokens, Reads, encoder_of
from worker.engine.decoding.partial_answers import Begun, Ending
from worker.engine.device import total_memory, translating_faults
from worker.engine.interfaces import Answer, Pieces, Prepared, Synchronous, Unjudgeable, require_none
from worker.engine.model.loading import LoadedModel
from worker.engine.prompting.prompt import Content, Encoded
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.prompting.windows import DEFAULT_POLICY, Coverage, Policy
from worker.engine.rendering import Renderer, pieces_of

PADDED_TOKENS = 8192  # per batch, unless configured


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A tokenised prompt."""

    ids: tuple[int, ...]
    responds: bool = False

    @property
    def n_tokens(self) -> int:
        """Length of the prompt in tokens."""
        return len(self.ids)


class GenerateBackend(Synchronous):
    """Correct on every device that torch knows: for what the packed pass does not cover, and the reference it is compared with."""

    padded = True

    def __init__(self, loaded: LoadedModel, *, budget_tokens: int, policy: Policy = DEFAULT_POLICY, max_rows: int = 256) -> None:
        self._network = loaded.network
        self._device = loaded.device
        self.model: Model = loaded.identity
        self.device = str(loaded.device)
        self.budget_tokens, self.max_rows = budget_tokens or PADDED_TOKENS, max_rows
        self._render = Renderer(loaded.prompter, max_positions=loaded.max_positions, policy=policy)
        self.max_prompt_tokens = self._render.max_prompt_tokens
        self._pad = loaded.tokenizer.pad_token_id or 0
        self._ending = Ending(loaded.network, loaded.tokenizer, is_quantized=loaded.is_quantized)
        self._label_tokens = LabelTokens(encoder_of(loaded.tokenizer), loaded.device)

    def prepare(
        self, contents: Sequence[Content], coverage: Coverage | None = None, policy: PromptPolicy | None = None
    ) -> list[Prepared | Pieces | Unjudgeable]:
        """Tokenise all contents in one call; unusable conversations become `Unjudgeable`, long contents `Pieces`."""
        require_none(policy, self.model)
        return [pieces_of(rendered, self._row) for rendered in self._render(contents, coverage)]

    @staticmethod
    def _row(encoded: Encoded) -> PromptRow:
        return PromptRow(encoded.ids, encoded.responds)

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared]) -> list[Answer]:
        """Return greedy answers, with the probabilities read at the steps that decide."""
        rows = [row for row in batch if isinstance(row, PromptRow)]
        with translating_faults(self._device):
            several = self._decode(rows)
        answers = [
            self._ending.answer(begun, row.n_tokens, responds=row.responds) for row, begun in zip(rows, several, strict=True)
        ]
        return [answer for answer in answers if answer is not None]

    def memory_bytes(self) -> int:
        """Return what torch has allocated on the GPU; 0 elsewhere."""
        return torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else 0

    def memory_total_bytes(self) -> int:
        """Return the memory of the GPU; 0 elsewhere."""
        return total_memory(self._device)

    def _decode(self, rows: Sequence[PromptRow]) -> list[Begun]:
        longest = max(row.n_tokens for row in rows)
        input_ids = torch.full((len(rows), longest), self._pad)  # (rows, longest), padded on the left
        attention_mask = torch.zeros_like(input_ids)
        for i, row in enumerate(rows):
            input_ids[i, longest - row.n_tokens :] = torch.tensor(row.ids)
            attention_mask[i, longest - row.n_tokens :] = 1
        input_ids, attention_mask = input_ids.to(self._device), attention_mask.to(self._device)
        position_ids = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._network.config)
        answers = [Begun() for _ in rows]
        while True:
            reads = self._read(input_ids, attention_mask, position_ids, cache)
            if not answers[0].tokens:
                self._ask_aside(answers, attention_mask, position_ids[:, -1:], cache)
            for i, begun in enumerate(answers):
                if not self._ending.is_reached(begun):
                    begun.note(reads, i, self._label_tokens)
                    begun.tokens.append(int(reads.tokens[i]))
                    begun.passes = len(begun.tokens)
            if all(self._ending.is_reached(begun) for begun in answers):
                return answers
            input_ids = torch.from_numpy(reads.tokens).to(self._device)[:, None]
            position_ids = position_ids[:, -1:] + 1
            attention_mask = torch.nn.functional.pad(attention_mask, (0, 1), value=1)

    def _ask_aside(self, answers: Sequence[Begun], attention_mask: torch.Tensor, last: torch.Tensor, cache: DynamicCache) -> None:
        """Read the category probabilities as if the answers were `Unsafe`; leaves the cache as it was."""
        question = torch.tensor(self._label_tokens.unsafe_prefix, device=self._device)
        n = len(question)
        mask = torch.nn.functional.pad(attention_mask, (0, n), value=1)
        positions = last + torch.arange(1, n + 1, device=self._device)
        reads = self._read(question.expand(len(answers), n), mask, positions, cache)
        cache.crop(-n)
        for i, begun in enumerate(answers):
            begun.categories = reads.categories(i)

    def _read(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor, cache: DynamicCache
    ) -> Reads:
        """Return what the model says behind these tokens, one position for each row."""
        out = self._network(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        reads = Reads(self._label_tokens)
        reads.add(out.logits[:, -1])  # (rows, vocabulary)
        reads.wait()
        return reads
