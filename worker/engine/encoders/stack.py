"""The packed pass: all tokens of a batch in one tensor, without padding, from ids to the head's outputs.

Only what the head reads is computed in the last layer: of a head that reads each row's first token, its queries and its
feed-forward alone, which saves a tenth of six layers and a fourteenth of twelve.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

from worker.engine.encoders.attention import Attention, Rows
from worker.engine.encoders.outline import Layer, Linear, Norm, Outline, Rotation
from worker.engine.forward.linear import joined, make_linear
from worker.engine.forward.varlen import Varlen, varlen_for
from worker.engine.interfaces import KernelMissingError

Step = Callable[[torch.Tensor], torch.Tensor]


class _Made(NamedTuple):
    """A layer whose products are ready. `q` and `kv` are of the last layer only, `qkv` of all others."""

    layer: Layer
    qkv: Step | None
    q: Step | None
    kv: Step | None
    o: Step
    up: Step
    down: Step


class PackedStack:
    """An outline made ready for a device; safe to call from several threads."""

    def __init__(self, outline: Outline, *, device: torch.device) -> None:
        self.device = device
        self._of = outline._replace(layers=[])  # their matrices live on in `_made` only, in the layout of the products
        self._made = [_made(layer, is_last=index == len(outline.layers) - 1) for index, layer in enumerate(outline.layers)]
        self._widen = None if outline.widen is None else make_linear(*outline.widen)
        is_half = outline.words.dtype in (torch.bfloat16, torch.float16)
        self._attention = Attention(outline.scale, outline.buckets, _kernel(device) if is_half else None)
        self.hidden = int(outline.embedding_norm.weight.shape[0])

    @torch.inference_mode()
    def head(self, pooled: torch.Tensor) -> torch.Tensor:
        """Return the head's outputs, (rows, labels) in fp32, of what it reads."""
        return self._of.head(pooled).float()

    @torch.inference_mode()
    def pooled(self, ids: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Return what the head reads of each row, (rows, hidden); `ids` (tokens,): row after row, equal lengths together."""
        rows = Rows(lengths, self.device)
        x = self._embedded(ids, rows)
        for made in self._made[:-1]:
            x = self._layer(made, x, rows)
        return self._last(self._made[-1], x, rows)

    def _embedded(self, ids: torch.Tensor, rows: Rows) -> torch.Tensor:
        x = functional.embedding(ids, self._of.words).add_(self._of.positions[rows.places])
        return _normed(self._widen(x) if self._widen else x, self._of.embedding_norm)

    def _layer(self, made: _Made, x: torch.Tensor, rows: Rows) -> torch.Tensor:
        if made.qkv is None:
            raise ValueError("the layer is made as the last")
        n, heads = len(x), self._of.heads
        q, k, v = made.qkv(self._before(made.layer.attention_norm, x)).view(n, 3, heads, -1).unbind(1)
        if made.layer.rotation:
            q, k = _rotated(q, made.layer.rotation, rows.places), _rotated(k, made.layer.rotation, rows.places)
        return self._finished(made, x, self._attention(made.layer, q, k, v, rows, firsts_only=False))

    def _last(self, made: _Made, x: torch.Tensor, rows: Rows) -> torch.Tensor:
        """As `_layer`, for the tokens that the head reads."""
        if made.q is None or made.kv is None:
            raise ValueError("the layer is not made as the last")
        heads, firsts_only = self._of.heads, not self._of.is_mean
        into = self._before(made.layer.attention_norm, x)
        k, v = made.kv(into).view(len(x), 2, heads, -1).unbind(1)
        read, places = (x[rows.firsts], rows.places[rows.firsts]) if firsts_only else (x, rows.places)
        q = made.q(into[rows.firsts] if firsts_only else into).view(len(read), heads, -1)
        if made.layer.rotation:
            q, k = _rotated(q, made.layer.rotation, places), _rotated(k, made.layer.rotation, rows.places)
        read = self._finished(made, read, self._attention(made.layer, q, k, v, rows, firsts_only=firsts_only))
        if self._of.final_norm:
            read = _normed(read, self._of.final_norm)
        return read if firsts_only else _means(read, rows)

    def _before(self, norm: Norm | None, x: torch.Tensor) -> torch.Tensor:
        return _normed(x, norm) if norm and self._of.norm_first else x

    def _finished(self, made: _Made, x: torch.Tensor, mixed: torch.Tensor) -> torch.Tensor:
        """Return the layer's output: the mixture projected and added, then the feed-forward network."""
        x = made.o(mixed).add_(x)
        if self._of.norm_first:
            return made.down(self._activated(made.up(_normed(x, made.layer.mlp_norm)))).add_(x)
        if made.layer.attention_norm:
            x = _normed(x, made.layer.attention_norm)
        return _normed(made.down(self._activated(made.up(x))).add_(x), made.layer.mlp_norm)

    def _activated(self, up: torch.Tensor) -> torch.Tensor:
        if not self._of.is_gated:
            return self._of.activation(up)
        inner, gate = up.chunk(2, -1)
        return self._of.activation(inner).mul_(gate)


def _made(layer: Layer, *, is_last: bool) -> _Made:
    kept = layer._replace(qkv=(NOTHING,) * 3, o=NOTHING, up=NOTHING, down=NOTHING)
    q, k, v = layer.qkv
    return _Made(
        kept,
        None if is_last else _joined(q, k, v),
        _joined(q) if is_last else None,
        _joined(k, v) if is_last else None,
        make_linear(*layer.o),
        make_linear(*layer.up),
        make_linear(*layer.down),
    )


NOTHING = Linear(torch.empty(0, 0), None)


def _joined(*several: Linear) -> Step:
    """Return one product of several layers with one input, side by side."""
    biases = [one.bias for one in several if one.bias is not None]
    return make_linear(joined([one.weight for one in several]), torch.cat(biases) if biases else None)


def _kernel(device: torch.device) -> Varlen | None:
    """Return the variable-length kernel on CUDA; elsewhere, torch's dense attention by groups is faster."""
    if device.type != "cuda":
        return None
    try:
        return varlen_for(device)
    except KernelMissingError:
        return None


def _normed(x: torch.Tensor, norm: Norm) -> torch.Tensor:
    return functional.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, norm.eps)


def _rotated(x: torch.Tensor, rotation: Rotation, places: torch.Tensor) -> torch.Tensor:
    """Rotate x (n, heads, head_dim) by its places, in fp32 as transformers does."""
    half = x.shape[-1] // 2
    wide = x.float()
    swapped = torch.cat([wide[..., half:], wide[..., :half]], -1)
    return (wide * rotation.cos[places][:, None]).addcmul_(swapped, rotation.sin[places][:, None].to(wide.dtype)).to(x.dtype)


def _means(x: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Return each row's mean, (rows, hidden)."""
    parts = [
        x[group.token : group.token + group.rows * group.length].view(group.rows, group.length, -1).mean(1) for group in rows.groups
    ]
    return torch.cat(parts)
