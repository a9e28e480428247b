"""Measure what the engine's thread costs per text without the device's arithmetic: the limit of a process with any GPU.

Measured on the thread's own clock, through the whole engine: queueing, packing, index lists, reading results, answers.
"""

import time
from collections.abc import Callable, Sequence

import torch

from worker.engine.bench.scripted import RehearsedBackend
from worker.engine.decoding.logits import Reads
from worker.engine.device import tensor_of
from worker.engine.engine import BatchingEngine
from worker.engine.forward.geometry import Ints
from worker.engine.forward.network import Attention
from worker.engine.interfaces import BatchReport


class StillBackend(RehearsedBackend):
    """Prepares each pass as for a GPU, and computes nothing."""

    def _pass(self, ids: Ints, positions: Ints, reads: Ints, attention: Callable[[], Attention]) -> Reads:
        attention()
        for values in (ids, positions, reads):
            tensor_of(values, self.network.device)
        found = Reads(self._label_tokens)
        found.take(torch.ones(len(reads), 3 + self._label_tokens.width))
        return found


def host_cost(backend: StillBackend, texts: Sequence[str], request_texts: int) -> dict[str, float]:
    """Return microseconds per text of the engine's thread, and of the threads that tokenise."""
    clock: list[float] = []

    def noted(_: BatchReport) -> None:
        clock.append(time.thread_time())  # called by the engine's thread

    engine = BatchingEngine(backend, on_batch=noted)
    engine.submit(texts[:1])
    began = time.thread_time()
    futures = [engine.submit(texts[at : at + request_texts]) for at in range(0, len(texts), request_texts)]
    prepared = time.thread_time() - began
    engine.start()
    for future in futures:
        future.result()
    engine.stop()
    return {"engine_us": clock[-1] / len(texts) * 1e6, "prepare_us": prepared / len(texts) * 1e6}
