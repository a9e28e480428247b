"""Greedy answers of a transformers model: left-padded batches, one prefill, then a token a step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache

from guardfleet.verdict import Model
from worker.engine.contract import Answer, Pieces, Prepared, Synchronous, Unjudgeable
from worker.engine.device import translating_faults
from worker.engine.loading import LoadedModel
from worker.engine.reading import Odds, end_ids
from worker.engine.rendering import MAX_NEW_TOKENS, Renderer, pieces_of
from worker.prompt import Content
from worker.windows import DEFAULT_POLICY, Coverage, Policy

PADDED_TOKENS = 8192  # of a batch, where nothing else was asked for


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A tokenised prompt."""

    ids: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.ids)


class GenerateBackend(Synchronous):
    """Correct on every device that torch knows: for what the packed pass does not cover, and the reference it is held against."""

    padded = True

    def __init__(self, loaded: LoadedModel, *, budget_tokens: int, policy: Policy = DEFAULT_POLICY, max_rows: int = 256) -> None:
        self._network, self._tokenizer = loaded.network, loaded.tokenizer
        self._device = loaded.device
        self.model: Model = loaded.identity
        self.device = str(loaded.device)
        self.budget_tokens, self.max_rows = budget_tokens or PADDED_TOKENS, max_rows
        self._render = Renderer(loaded.prompter, max_positions=loaded.max_positions, policy=policy)
        self.max_prompt_tokens = self._render.max_prompt_tokens
        self._pad = loaded.tokenizer.pad_token_id or 0
        self._ends = torch.tensor(end_ids(loaded.network, loaded.tokenizer), device=self._device)
        self._odds = Odds(lambda text: loaded.tokenizer(text, add_special_tokens=False)["input_ids"], loaded.device)

    def prepare(self, contents: Sequence[Content], coverage: Coverage | None = None) -> list[Prepared | Pieces | Unjudgeable]:
        """Tokenise all contents in one call; unusable conversations are told apart, long ones come in pieces."""
        return [pieces_of(rendered, lambda encoded: PromptRow(encoded.ids)) for rendered in self._render(contents, coverage)]

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared]) -> list[Answer]:
        """Greedy answers, with the label's probabilities read off the step that decides it."""
        rows = [row for row in batch if isinstance(row, PromptRow)]
        with translating_faults(self._device):
            new_ids, probabilities = self._decode(rows)
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
            if step == len(self._odds.label_prefix):
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
        chances = self._odds.labels(logits).tolist()
        begun = torch.stack(steps, 1).tolist() if steps else [[] for _ in chances]
        return [tuple(c) if tuple(b) == self._odds.label_prefix else None for c, b in zip(chances, begun, strict=True)]

    def _until_end(self, ids: list[int]) -> list[int]:
        ends = set(self._ends.tolist())
        return ids[: next((i for i, token in enumerate(ids) if token in ends), len(ids))]
