"""The engine's backend for classifiers: rows to scores, on as many streams as the device runs at once."""

import functools
from collections.abc import Sequence
from concurrent.futures import Future

import torch

from worker.engine.device import total_memory, translating_faults
from worker.engine.encoders.classifier import LoadedClassifier
from worker.engine.encoders.packed import Pass
from worker.engine.encoders.tokens import TextRow
from worker.engine.interfaces import Answer, Launched, Pieces, Prepared, Unjudgeable, require_none
from worker.engine.prompting.prompt import Content
from worker.engine.prompting.prompt_policy import PromptPolicy
from worker.engine.prompting.windows import Coverage
from worker.engine.streams import ahead_of, open_streams, streams_for

CPU_TOKENS = 1024  # of a batch: products are as fast as they get from 128 on, and activations of more leave the caches
GPU_TOKENS = 65_536  # larger batches only make requests wait
MAX_ROWS = 4096


class ClassifierBackend:
    """Serves a classifier by a pass; a batch costs rows x longest if that is padded, otherwise the sum of its lengths."""

    def __init__(self, loaded: LoadedClassifier, made: Pass, *, budget_tokens: int, streams: int = 0) -> None:
        self.model = loaded.identity
        self.device, self.padded = str(loaded.device), made.padded
        self.reader, self._logits = loaded.reader, made.logits
        self._device, self._is_multi = loaded.device, loaded.is_multi
        self.streams = streams_for(loaded.device, streams)
        self.budget_tokens = budget_tokens or (CPU_TOKENS if loaded.device.type == "cpu" else GPU_TOKENS)
        self.max_rows = MAX_ROWS
        self.ahead = ahead_of(loaded.device, self.streams)
        self._start = open_streams(self.streams).submit

    def prepare(
        self, contents: Sequence[Content], coverage: Coverage | None = None, policy: PromptPolicy | None = None
    ) -> Sequence[Prepared | Pieces | Unjudgeable]:
        """Tokenise all contents in one call; unusable conversations become `Unjudgeable`, long texts `Pieces`."""
        require_none(policy, self.model)
        return self.reader(contents, coverage)

    def run(self, batch: Sequence[Prepared]) -> Sequence[Answer | Prepared]:
        """Return an answer for every row, in order."""
        return self.launch(batch).collect()

    def launch(self, batch: Sequence[Prepared]) -> Launched:
        """As `interfaces.Backend.launch`."""
        rows = [row for row in batch if isinstance(row, TextRow)]
        if len(rows) < len(batch):
            raise TypeError("a row of another backend")
        judged = sorted((i for i, row in enumerate(rows) if row.ids), key=lambda i: len(rows[i].ids))
        if not judged:
            return Launched(lambda: [_too_short() for _ in rows])
        with translating_faults(self._device):
            done = self._start(self._pass, [rows[i].ids for i in judged])
        collect = functools.partial(self._collect, rows, judged, done)
        return Launched(collect, done, done.cancel) if self.streams > 1 else Launched(collect, done)

    @torch.inference_mode()
    def _pass(self, rows: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """Compute scores, (rows, labels) in fp32."""
        logits = self._logits(rows)
        return logits.sigmoid() if self._is_multi else logits.softmax(-1)

    def _collect(self, rows: Sequence[TextRow], judged: Sequence[int], done: "Future[torch.Tensor]") -> list[Answer]:
        with translating_faults(self._device):
            scores = done.result().tolist()
        out = [_too_short() for _ in rows]
        for i, found in zip(judged, scores, strict=True):
            if not all(0 <= score <= 1 for score in found):  # not a number is none of these
                raise ValueError("the model's scores are not between 0 and 1")
            out[i] = Answer("", input_tokens=len(rows[i].ids), scores=tuple(found))
        return out

    def memory_bytes(self) -> int:
        """Return what torch has allocated on the GPU; 0 elsewhere."""
        return torch.cuda.memory_allocated(self._device) if self._device.type == "cuda" else 0

    def memory_total_bytes(self) -> int:
        """Return the memory of the GPU; 0 elsewhere."""
        return total_memory(self._device)


def _too_short() -> Answer:
    return Answer("", is_too_short=True)
