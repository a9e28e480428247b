"""A classifier as the packed pass sees it: its tables and matrices, whatever the family calls them."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from worker.engine.forward.linear import Weight

Bias = torch.Tensor | None
Table = Callable[[torch.Tensor], torch.Tensor]  # (n, hidden) -> (n, outputs)


class Linear(NamedTuple):
    """A linear layer: weight (out, in), bias (out,)."""

    weight: Weight
    bias: Bias


class Norm(NamedTuple):
    """A layer norm."""

    weight: torch.Tensor
    bias: Bias
    eps: float


class Rotation(NamedTuple):
    """Rotary positions, (positions, head_dim) each; the sine's first half is negated."""

    cos: torch.Tensor
    sin: torch.Tensor


class Relative(NamedTuple):
    """A layer's share of DeBERTa's disentangled attention: projected relative positions (heads, 2 * span, head_dim).

    `keys` answer queries (content to position), `queries` ask keys (position to content); None if the model lacks the kind.
    """

    keys: torch.Tensor | None
    queries: torch.Tensor | None


class Layer(NamedTuple):
    """One layer. Norms come before a block and leave its input as it is (`norm_first`), or after it and its input's sum."""

    qkv: tuple[Linear, Linear, Linear]
    o: Linear
    attention_norm: Norm | None
    up: Linear  # gated: what is activated, then the gate, side by side
    down: Linear
    mlp_norm: Norm
    window: int | None = None  # a token sees those at most so far away; None: all
    rotation: Rotation | None = None
    relative: Relative | None = None


class Outline(NamedTuple):
    """A classifier. `buckets`: where in `Relative` a distance is, from -(positions - 1) to positions - 1."""

    words: torch.Tensor  # (vocabulary, width)
    positions: torch.Tensor  # (positions, width): added to a word's, at its place in the row
    widen: Linear | None  # from the tables' width to the layers'
    embedding_norm: Norm
    layers: list[Layer]
    heads: int
    scale: float  # of scores
    activation: Callable[[torch.Tensor], torch.Tensor]
    is_gated: bool
    norm_first: bool
    final_norm: Norm | None
    is_mean: bool  # the head reads the mean of a row, not its first token
    head: Table
    buckets: torch.Tensor | None = None
