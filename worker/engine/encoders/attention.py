"""Attention among packed rows without a mask for padding, since there is none: rows of one length are attended to together.

`Rows` says where a pass's rows are. Each kind of attention takes queries, keys and values of all tokens and returns the mixture.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention

from worker.engine.encoders.outline import Layer
from worker.engine.forward.varlen import Cuts, Varlen

QUERY_BLOCK = 256  # of sliding windows: a block sees itself and a window on both sides
SCORES = 1 << 21  # numbers of disentangled scores that exist at once: 8 MB in fp32


class Group(NamedTuple):
    """Neighbouring rows of one length: the first row and token, how many rows, tokens of each."""

    row: int
    token: int
    rows: int
    length: int


class Rows:
    """Where the rows of a pass are, by their lengths, which must be sorted or at least grouped."""

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self.lengths, self.device = lengths, device
        self.groups: list[Group] = []
        token = 0
        for row, length in enumerate(lengths):
            last = self.groups[-1] if self.groups else None
            if last and last.length == length:
                self.groups[-1] = last._replace(rows=last.rows + 1)
            else:
                self.groups.append(Group(row, token, 1, length))
            token += length
        self.n_tokens = token
        counts = torch.tensor(lengths)
        starts = counts.cumsum(0) - counts
        self.firsts = starts.to(device)  # (rows,): each row's first token
        self.places = (torch.arange(token) - starts.repeat_interleave(counts)).to(device)  # (tokens,): its place in its row

    @functools.cached_property
    def cuts(self) -> Cuts:
        """As `varlen` takes them."""
        return Cuts.of(self.lengths, self.device)

    @functools.cached_property
    def cut_firsts(self) -> Cuts:
        """The same for one query for each row."""
        return Cuts.of([1] * len(self.lengths), self.device)


class Attention:
    """Attends in all rows. `varlen`: the kernel for layers that see whole rows; None: torch's dense attention, by group."""

    def __init__(self, scale: float, buckets: torch.Tensor | None, varlen: Varlen | None) -> None:
        self._scale, self._buckets, self._varlen = scale, buckets, varlen

    def __call__(
        self, layer: Layer, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: Rows, *, firsts_only: bool
    ) -> torch.Tensor:
        """Return the mixture, (queries, heads * head_dim); q, k, v: (queries or tokens, heads, head_dim).

        `firsts_only`: queries are of each row's first token alone.
        """
        if self._varlen and layer.relative is None and layer.window is None:
            cut_q = rows.cut_firsts if firsts_only else rows.cuts
            mixed, _ = self._varlen(q.contiguous(), k.contiguous(), v.contiguous(), cut_q, rows.cuts, causal=False)
            return mixed.flatten(-2)
        out = q.new_empty(len(q), q.shape[1] * q.shape[2])
        for group in rows.groups:
            tokens = slice(group.token, group.token + group.rows * group.length)
            asked = slice(group.row, group.row + group.rows) if firsts_only else tokens
            parts = [_by_head(part, group.rows) for part in (q[asked], k[tokens], v[tokens])]
            mixed = self._mixed(layer, parts[0], parts[1], parts[2])
            out[asked] = mixed.transpose(1, 2).reshape(-1, out.shape[1])
        return out

    def _mixed(self, layer: Layer, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attend in rows of one length: (rows, heads, tokens, head_dim) each."""
        if layer.relative is not None:
            return self._disentangled(layer, q, k, v)
        window = layer.window
        if window is None or k.shape[2] <= window + 1:
            return scaled_dot_product_attention(q, k, v, scale=self._scale)
        return torch.cat(list(self._sliding(window, q, k, v)), 2)

    def _sliding(self, window: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Iterator[torch.Tensor]:
        for start in range(0, q.shape[2], QUERY_BLOCK):
            end = min(start + QUERY_BLOCK, q.shape[2])
            seen = slice(max(0, start - window), min(end + window, k.shape[2]))
            mask = near(end - start, seen.stop - seen.start, start - seen.start, window, q.device)
            yield scaled_dot_product_attention(q[:, :, start:end], k[:, :, seen], v[:, :, seen], attn_mask=mask, scale=self._scale)

    def _disentangled(self, layer: Layer, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Add to the scores what content says of distances, and distances of content, a few rows at a time."""
        each = max(1, SCORES // (q.shape[1] * q.shape[2] * k.shape[2]))
        out = [
            scaled_dot_product_attention(a, b, c, attn_mask=self._bias(layer, a, b), scale=self._scale)
            for a, b, c in zip(*(torch.split(part, each) for part in (q, k, v)), strict=True)
        ]
        return out[0] if len(out) == 1 else torch.cat(out)

    def _bias(self, layer: Layer, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
        """Return (rows, heads, queries, keys). Column c of a product stands for the distance c - (n - 1)."""
        if layer.relative is None or self._buckets is None:
            raise ValueError("the layer has no relative positions")
        n, middle = k.shape[2], len(self._buckets) // 2
        at = self._buckets[middle - (n - 1) : middle + n]
        bias: torch.Tensor | None = None
        if layer.relative.keys is not None:
            # Entry (i, j) is q_i times the key of distance i - j: columns in reverse, so that j grows along the row.
            bias = _skewed(q @ layer.relative.keys[:, at.flip(0)].transpose(-1, -2), n, is_key=False)
        if layer.relative.queries is not None:
            # Entry (i, j) is k_j times the query of distance i - j: the same distance, seen from the key.
            other = _skewed(k @ layer.relative.queries[:, at].transpose(-1, -2), n, is_key=True)[:, :, : q.shape[2]]
            bias = other if bias is None else bias + other
        if bias is None:
            raise ValueError("the layer asks for no relative positions")
        return bias * self._scale


def _skewed(product: torch.Tensor, n: int, *, is_key: bool) -> torch.Tensor:
    """View (rows, heads, tokens, 2 n - 1), whose columns are distances, as (rows, heads, queries, keys), without a copy."""
    rows, heads, tokens, width = product.shape
    product = product.contiguous()
    steps = (product.stride(0), product.stride(1))
    if is_key:  # entry (i, j) stands in row j, column n - 1 - j + i
        return product.as_strided((rows, heads, n, n), (*steps, 1, width - 1), n - 1)
    return product.as_strided((rows, heads, tokens, n), (*steps, width - 1, 1), n - 1)


def near(queries: int, keys: int, ahead: int, window: int, device: torch.device) -> torch.Tensor:
    """Return (queries, keys): whether a key is at most `window` away; the first query is `ahead` places behind the first key."""
    distance = torch.arange(keys, device=device) - torch.arange(ahead, ahead + queries, device=device)[:, None]
    return distance.abs() <= window


def _by_head(tensor: torch.Tensor, rows: int) -> torch.Tensor:
    """View (rows * tokens, heads, head_dim) as (rows, heads, tokens, head_dim)."""
    return tensor.view(rows, -1, *tensor.shape[1:]).transpose(1, 2)
