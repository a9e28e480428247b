"""What this worker can do, measured: tokens per second while its device is busy, and tokens per byte of text."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from guardfleet.rows.payload import PayloadRow
from guardfleet.rows.row import content_bytes

WINDOW_S = 300.0
SLICE_S = 10.0  # what is measured is kept by slices of this length
LEAST_BUSY_S = 1.0  # of the device, before a rate says anything
SAMPLE = 64  # texts of a shard whose size is measured; the others are taken to be like them


@dataclass(slots=True)
class _Slice:
    began: float
    tokens: int = 0
    busy_s: float = 0.0
    text_bytes: float = 0.0


@dataclass
class Throughput:
    """Counts over the last minutes. Thread-safe. A rate stays at its last value while nothing is judged."""

    clock: Callable[[], float] = time.monotonic
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _slices: deque[_Slice] = field(default_factory=deque, init=False)
    _tokens_per_s: float | None = field(default=None, init=False)
    _tokens_per_byte: float | None = field(default=None, init=False)

    def batch(self, tokens: int, seconds: float) -> None:
        """Count a batch: the device was busy with it, and with no other, for so long."""
        with self._lock:
            now = self._now()
            now.tokens += tokens
            now.busy_s += seconds

    def finished(self, rows: Sequence[PayloadRow]) -> None:
        """Count the texts of a shard, those that needed no model run too: they are part of what waits."""
        some = rows[:: -(-len(rows) // SAMPLE)] if rows else []
        size = sum(content_bytes(row.content) for row in some) * len(rows) / max(1, len(some))
        with self._lock:
            self._now().text_bytes += size

    def rates(self) -> tuple[float | None, float | None]:
        """Return tokens per second of a busy device, and tokens per byte of text; None for what was not measured yet."""
        with self._lock:
            self._drop_old()
            tokens = sum(one.tokens for one in self._slices)
            busy_s = sum(one.busy_s for one in self._slices)
            text_bytes = sum(one.text_bytes for one in self._slices)
            if busy_s >= LEAST_BUSY_S:
                self._tokens_per_s = tokens / busy_s
                self._tokens_per_byte = tokens / text_bytes if text_bytes else self._tokens_per_byte
            return self._tokens_per_s, self._tokens_per_byte

    def _now(self) -> _Slice:
        self._drop_old()
        now = self.clock()
        if not self._slices or now - self._slices[-1].began >= SLICE_S:
            self._slices.append(_Slice(now))
        return self._slices[-1]

    def _drop_old(self) -> None:
        oldest = self.clock() - WINDOW_S
        while self._slices and self._slices[0].began < oldest:
            self._slices.popleft()
