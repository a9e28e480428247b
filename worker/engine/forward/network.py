"""Qwen3's forward pass over packed rows. There are two kinds: `cpu_network`, and `fused_network` for CUDA.

There is no padding and no cache object, and the last layer and the head run only where they are read. The weights are taken from
transformers' module, and the pass is compared with its logits at load (`self_test`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch

from worker.engine.forward.linear import Weight, weight_of
from worker.engine.model.shape import Shape

Product = Callable[[torch.Tensor], object]


def why_not(network: Any) -> str | None:
    """Return what the packed pass does not support about this network; None if it supports all of it."""
    config = network.config
    if config.model_type != "qwen3":
        return f"architecture {config.model_type}"
    if config.attention_bias or config.hidden_act != "silu":
        return "attention bias or another activation than SiLU"
    if config.use_sliding_window or config.rope_parameters.get("rope_type", "default") != "default":
        return "sliding windows or scaled rotary positions"
    device, dtype = network.device.type, network.dtype
    if device == "cuda" and dtype not in (torch.bfloat16, torch.float16):
        return "fp32 on CUDA"
    if device not in ("cpu", "cuda"):
        return f"device {device}"
    return None


class Attention(Protocol):
    """The steps between projecting queries, keys and values and reading the mixture. One object serves one pass."""

    def store(self, layer: int, start: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Store keys and values of the tokens from `start` on, (n, kv_heads, head_dim) each; keys are rotated."""

    def room(self, layer: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where to write keys and values of the first n tokens, (n, kv_heads, head_dim) each."""

    def ask(self, start: int, q: torch.Tensor) -> None:
        """Store rotated queries (n, heads, head_dim) from `start` on, of tokens or, in the last layer, of reads."""

    def mix(self, layer: int, *, reads_only: bool) -> torch.Tensor:
        """Return the mixed values for each query: (queries, heads * head_dim)."""


class PackedNetwork(Protocol):
    """The weights of a Qwen3 causal LM, ready for packed passes. Made from a module that it takes apart."""

    shape: Shape
    device: torch.device
    dtype: torch.dtype
    step: int  # numbers of tokens and reads should be multiples of it: fillers at the end do not affect the others
    head_rows: int  # maximum rows of `logits` at once

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, reads: torch.Tensor, attention: Attention, depth: int | None = None
    ) -> torch.Tensor:
        """Return the head's input, (reads, hidden), at the indices `reads`; `ids` and `positions` are (tokens,).

        `depth`: use only the first few layers.
        """

    def logits(self, read: torch.Tensor) -> torch.Tensor:
        """Return (n, vocabulary) for (n, hidden)."""

    def products(self) -> list[tuple[int, Product]]:
        """Return the products of all layers, each with its input's width, for measuring the machine's rate."""


def products_of(shape: Shape, layers: Sequence[tuple[Product, Product, Product, Product]]) -> list[tuple[int, Product]]:
    """As `PackedNetwork.products`, from each layer's products for q, k and v, attention's output, gate and up, and down."""
    widths = (shape.hidden, shape.heads * shape.head_dim, shape.hidden, shape.intermediate)
    return [pair for products in layers for pair in zip(widths, products, strict=True)]


class Taken(NamedTuple):
    """The parts of a layer of transformers' network, removed from the module."""

    q: Weight
    k: Weight
    v: Weight
    o: Weight
    gate: Weight
    up: Weight
    down: Weight
    input_norm: torch.Tensor
    mlp_norm: torch.Tensor
    q_norm: torch.Tensor
    k_norm: torch.Tensor

    @classmethod
    def of(cls, layer: Any) -> "Taken":
        """Take a layer apart."""
        attention, mlp = layer.self_attn, layer.mlp

        def take(owner: Any, name: str) -> Weight:
            taken = weight_of(getattr(owner, name))
            setattr(owner, name, None)
            return taken

        return cls(
            q=take(attention, "q_proj"),
            k=take(attention, "k_proj"),
            v=take(attention, "v_proj"),
            o=take(attention, "o_proj"),
            gate=take(mlp, "gate_proj"),
            up=take(mlp, "up_proj"),
            down=take(mlp, "down_proj"),
            input_norm=layer.input_layernorm.weight,
            mlp_norm=layer.post_attention_layernorm.weight,
            q_norm=attention.q_norm.weight,
            k_norm=attention.k_norm.weight,
        )


class Tables(NamedTuple):
    """Tables indexed by token or position: embeddings (vocabulary, hidden), cosines and sines (positions, head_dim).

    The sine's first half is negated, so that rotating a half is a plain swap.
    """

    embedding: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor

    @classmethod
    def of(cls, network: Any) -> "Tables":
        """Build from transformers' network."""
        embedding = network.model.embed_tokens.weight
        positions = torch.arange(network.config.max_position_embeddings, device=network.device)
        cos, sin = network.model.rotary_emb(embedding[:1], positions[None])
        half = cos.shape[-1] // 2
        return cls(embedding, cos[0].contiguous(), torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1).contiguous())
