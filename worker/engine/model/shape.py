"""The sizes of a network, named as its configuration names them."""

from typing import Any, NamedTuple


class Shape(NamedTuple):
    """The sizes of a network."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    intermediate: int
    vocabulary: int


def shape_of(config: Any) -> Shape:
    """Return the shape in a transformers configuration of Qwen3."""
    return Shape(
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.hidden_size,
        config.intermediate_size,
        config.vocab_size,
    )
