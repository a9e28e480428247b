"""Attention over packed rows on CPUs, in two ways. Which is faster depends on the processor and on the network's shape.

If the matrix kernels inside torch's attention are slow (MKL on AMD), oneDNN's products win; with few or small heads, and on Intel's
processors, one call per row wins (docs/decisions/0005). `fastest` measures it.
"""

import functools
import time
from concurrent.futures import Executor

import torch
from torch.nn import functional

from worker.engine.forward.attention import Storing, Workspace
from worker.engine.forward.geometry import Prefix, Rows
from worker.engine.forward.linear import make_product
from worker.engine.model.shape import Shape

QUERY_BLOCK = 256  # queries at once: their scores stay in the cache, and keys after the block are skipped
ROW_QUERY_BLOCK = 192  # the same for all heads of a row in one call
STEP = 16  # sizes of products are rounded up to this: oneDNN compiles a kernel for each new size
# Keys are rounded up to this: oneDNN's bf16 product on AMX reads a row of scores in steps of 32 and past its end. With another
# number of keys, a query whose scores are not finite makes the query before it not finite (torch 2.13; fp16 and fp32 do not).
KEY_STEP = 32
TRIAL_PREFIX, TRIAL_ROWS, TRIAL_TURNS = 60, (20, 40, 60, 90, 130, 300), 6  # tokens: what `fastest` tries, and how often


class _Grouped(Storing):
    """Groups queries by head of keys, so that all queries of the same keys are adjacent."""

    def __init__(self, workspace: Workspace, rows: Rows) -> None:
        super().__init__(workspace, rows.tokens)
        s = workspace.shape
        self._rows = rows
        self._group = s.heads // s.kv_heads
        self._asked = 0
        self._q = workspace.q.view(s.kv_heads, -1, self._group, s.head_dim)
        self._out = workspace.out.view(-1, s.kv_heads, self._group, s.head_dim)
        self._order = sorted(range(len(rows.lengths)), key=lambda i: id(rows.prefixes[i]))
        self._runs = {False: rows.runs, True: rows.read_runs}

    def ask(self, start: int, q: torch.Tensor) -> None:
        """Store scaled queries."""
        s = self._w.shape
        grouped = q.view(len(q), s.kv_heads, self._group, s.head_dim).transpose(0, 1)
        torch.mul(grouped, s.head_dim**-0.5, out=self._q[:, start : start + len(q)])
        self._asked = start + len(q)


class HeadwiseAttention(_Grouped):
    """Computes one head of one row at a time: two matrix products around a softmax, all within the caches."""

    def __init__(self, workspace: Workspace, rows: Rows) -> None:
        super().__init__(workspace, rows)
        self._product = make_product(workspace.kv)
        self._held = torch.zeros(2, max(rows.keys) + KEY_STEP, workspace.shape.head_dim, dtype=workspace.dtype)
        self._keys, self._values = self._held
        self._future = future_mask(QUERY_BLOCK + KEY_STEP, self._group, workspace.dtype)

    def mix(self, layer: int, *, reads_only: bool) -> torch.Tensor:
        """Attend head by head, so that a head's keys and values are still in the cache when they are used."""
        several = self._runs[reads_only]
        for head in range(self._w.shape.kv_heads):
            held: Prefix | None = None
            q, kv = self._q[head], self._w.kv[layer, :, head]
            for i in self._order:
                prefix = self._rows.prefixes[i]
                if prefix is not held:
                    self._held[:, : prefix.n] = prefix.kv[layer, :, head]
                    held = prefix
                for tokens, at, queries in several[i]:
                    n = at + len(tokens)
                    end = prefix.n + n
                    self._held[:, prefix.n + at : end] = kv[:, tokens.start : tokens.stop]
                    self._held[:, end : end + KEY_STEP] = 0  # another row's are hidden, but 0 times what is not finite is not 0
                    self._row(q, self._out[:, head], queries.stop - n, prefix.n, n - len(queries), n)
        return self._w.out[: self._asked]

    def _row(self, q: torch.Tensor, out: torch.Tensor, base: int, offset: int, first: int, n: int) -> None:
        """Compute queries first..n of a row; token t's query and output are at base + t, its key at offset + t.

        Rounding up computes more than n: the mask hides the extra keys, and extra queries are not copied out.
        """
        for a in range(first, n, QUERY_BLOCK):
            b = min(a + QUERY_BLOCK, n)
            last_query, width = a + _up(b - a, STEP), _up(offset + b, KEY_STEP)
            queries = q[base + a : base + last_query].view(self._group * (last_query - a), -1)
            scores = self._product(queries, self._keys[:width])
            scores[:, offset + a :].add_(self._future[: len(queries), : width - offset - a])
            mixed = self._product(scores.softmax(-1), self._values[:width].t())
            out[base + a : base + b] = mixed.view(last_query - a, self._group, -1)[: b - a]


class RowwiseAttention(_Grouped):
    """Computes one row at a time, all heads in one call of torch's attention."""

    def __init__(self, workspace: Workspace, rows: Rows) -> None:
        super().__init__(workspace, rows)
        s = workspace.shape
        self._keys, self._values = torch.empty(2, s.kv_heads, max(rows.keys), s.head_dim, dtype=workspace.dtype)
        self._most = -(-max(rows.keys) // 1024) * 1024
        self._mask = lag_mask(ROW_QUERY_BLOCK, self._most, self._group, workspace.dtype)

    def mix(self, layer: int, *, reads_only: bool) -> torch.Tensor:
        """Attend row by row behind the prefix, which stays in place for all rows that have it."""
        held: Prefix | None = None
        k, v = self._w.kv[layer]
        for i in self._order:
            prefix = self._rows.prefixes[i]
            if prefix is not held:
                self._keys[:, : prefix.n], self._values[:, : prefix.n] = prefix.kv[layer]
                held = prefix
            for tokens, at, queries in self._runs[reads_only][i]:
                n = at + len(tokens)
                self._keys[:, prefix.n + at : prefix.n + n] = k[:, tokens.start : tokens.stop]
                self._values[:, prefix.n + at : prefix.n + n] = v[:, tokens.start : tokens.stop]
                self._row(queries.stop - n, prefix.n, n - len(queries), n)
        return self._w.out[: self._asked]

    def _row(self, base: int, offset: int, first: int, n: int) -> None:
        """As `HeadwiseAttention._row`, for all heads."""
        for a in range(first, n, ROW_QUERY_BLOCK):
            b, seen = min(a + ROW_QUERY_BLOCK, n), offset + a
            mixed = functional.scaled_dot_product_attention(
                self._q[None, :, base + a : base + b].flatten(2, 3),
                self._keys[None, :, : offset + b],
                self._values[None, :, : offset + b],
                attn_mask=self._mask[: (b - a) * self._group, self._most - seen : self._most + b - a],
                scale=1.0,
            )
            self._out[base + a : base + b] = mixed[0].view(len(self._out[0]), b - a, self._group, -1).transpose(0, 1)


Kind = type[HeadwiseAttention] | type[RowwiseAttention]
KINDS: tuple[Kind, ...] = (HeadwiseAttention, RowwiseAttention)
_FOUND: dict[tuple[Shape, torch.dtype, int], Kind] = {}  # the machine does not change; tests load models repeatedly


def fastest(shape: Shape, dtype: torch.dtype, streams: Executor, n: int) -> Kind:
    """Return the faster kind for this shape, found by trying both for a fraction of a second on all `n` streams at once.

    They take turns and the best turn of each counts, so that first calls and other load on the machine do not decide.
    """
    if (shape, dtype, n) not in _FOUND:
        attentions = {kind: [_trial(kind, shape._replace(layers=1), dtype) for _ in range(n)] for kind in KINDS}
        best = dict.fromkeys(KINDS, float("inf"))
        for _ in range(TRIAL_TURNS):
            for kind, several in attentions.items():
                started = time.perf_counter()
                list(streams.map(lambda attention: attention.mix(0, reads_only=False), several))
                best[kind] = min(best[kind], time.perf_counter() - started)
        _FOUND[shape, dtype, n] = min(best, key=best.__getitem__)
    return _FOUND[shape, dtype, n]


def _trial(kind: Kind, shape: Shape, dtype: torch.dtype) -> HeadwiseAttention | RowwiseAttention:
    prefix = Prefix((0,) * TRIAL_PREFIX, torch.zeros(1, 2, shape.kv_heads, TRIAL_PREFIX, shape.head_dim, dtype=dtype))
    q = torch.zeros(sum(TRIAL_ROWS), shape.heads, shape.head_dim, dtype=dtype)
    made = kind(Workspace(shape, torch.device("cpu"), dtype), Rows(TRIAL_ROWS, TRIAL_ROWS, [prefix] * len(TRIAL_ROWS)))
    made.store(0, 0, q[:, : shape.kv_heads], q[:, : shape.kv_heads])
    made.ask(0, q)
    return made


@functools.lru_cache(maxsize=4)
def future_mask(n: int, group: int, dtype: torch.dtype) -> torch.Tensor:
    """Return (n * group, n): -inf where a key comes after its query, else 0; `group` consecutive queries belong to one token."""
    later = torch.ones(n, n, dtype=torch.bool).triu(1).repeat_interleave(group, 0)
    return torch.zeros(n * group, n, dtype=dtype).masked_fill_(later, float("-inf"))


@functools.lru_cache(maxsize=4)
def lag_mask(n: int, most: int, group: int, dtype: torch.dtype) -> torch.Tensor:
    """Return (n * group, most + n): query i sees all columns up to most + i; `group` consecutive rows belong to one query.

    The columns from `most - seen` on are the mask of queries that come after `seen` keys.
    """
    later = torch.ones(n, most + n, dtype=torch.bool).triu(most + 1).repeat_interleave(group, 0)
    return torch.zeros(n * group, most + n, dtype=dtype).masked_fill_(later, float("-inf"))


def _up(n: int, step: int) -> int:
    return -(-n // step) * step
