"""Qwen3's forward pass over packed rows, of which there are two kinds: `cpu_network` and `fused_network`, for CUDA.

No padding, no cache object, and the last layer and the head only where they are read. The weights are taken out of transformers'
module, whose logits the pass is held against at load (`self_test`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch

from worker.engine.forward.linear import Weight, weight_of
from worker.engine.model.shape import Shape

Product = Callable[[torch.Tensor], object]


def why_not(network: Any) -> str | None:
    """What of this network the packed pass does not cover; None when it covers all of it."""
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
    """What a pass does between projecting queries, keys and values and reading the mixture. One object serves one pass."""

    def store(self, layer: int, start: int, k: torch.Tensor, v: torch.Tensor) -> None:
        """Take keys and values of the tokens from `start` on, (n, kv_heads, head_dim) each; keys are rotated."""

    def room(self, layer: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Where keys and values of the first n tokens go, (n, kv_heads, head_dim) each, for who writes them there itself."""

    def ask(self, start: int, q: torch.Tensor) -> None:
        """Take rotated queries (n, heads, head_dim) from `start` on, of tokens or, in the last layer, of reads."""

    def mix(self, layer: int, *, reads_only: bool) -> torch.Tensor:
        """The values mixed for each query asked: (queries, heads * head_dim)."""


class PackedNetwork(Protocol):
    """The weights of a Qwen3 causal LM, ready for packed passes. Made of a module that it takes apart."""

    shape: Shape
    device: torch.device
    dtype: torch.dtype
    step: int  # numbers of tokens and of reads are best multiples of it: fillers at the end change nothing for the others
    head_rows: int  # of `logits` at once, at most

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, reads: torch.Tensor, attention: Attention, depth: int | None = None
    ) -> torch.Tensor:
        """What the head reads, (reads, hidden), of the tokens at the indices `reads`; `ids` and `positions` are (tokens,).

        `depth`: of a network without the layers behind the first few.
        """

    def logits(self, read: torch.Tensor) -> torch.Tensor:
        """(n, vocabulary) for (n, hidden)."""

    def products(self) -> list[tuple[int, Product]]:
        """Its products of all layers, each with the width of what it takes: what the machine's rate is taken of."""


def products_of(shape: Shape, layers: Sequence[tuple[Product, Product, Product, Product]]) -> list[tuple[int, Product]]:
    """As `PackedNetwork.products`, of each layer's products for q, k and v, attention's output, gate and up, and down."""
    widths = (shape.hidden, shape.heads * shape.head_dim, shape.hidden, shape.intermediate)
    return [pair for products in layers for pair in zip(widths, products, strict=True)]


class Taken(NamedTuple):
    """What a layer of transformers' network consists of; the module keeps nothing of it."""

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
        """Take it apart."""
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
    """What is looked up by token or by position: embeddings (vocabulary, hidden), cosines and sines (positions, head_dim).

    The sine's first half is negated: rotating a half is then a plain swap.
    """

    embedding: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor

    @classmethod
    def of(cls, network: Any) -> "Tables":
        """Of transformers' network."""
        embedding = network.model.embed_tokens.weight
        positions = torch.arange(network.config.max_position_embeddings, device=network.device)
        cos, sin = network.model.rotary_emb(embedding[:1], positions[None])
        half = cos.shape[-1] // 2
        return cls(embedding, cos[0].contiguous(), torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1).contiguous())
