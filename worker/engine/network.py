"""Qwen3's forward pass over packed rows: no padding, no cache object, and the last layer and the head only where they are read.

The weights are taken out of transformers' module, whose logits the pass is held against at load (`PackedBackend._self_test`).
"""

import math
from typing import Any, NamedTuple, Protocol

import torch

from worker.engine.device import LARGEST_HEAP_BLOCK
from worker.engine.elementwise import HeadNorm, elementwise_for
from worker.engine.linear import Linear, make_linear

CHUNK_BYTES = 8 << 20  # widest activation of one chunk on a CPU: it stays in the caches
STEPS = 64  # sizes that the last chunk of a CPU pass can have: oneDNN compiles its kernels anew for each


class Shape(NamedTuple):
    """The sizes of a network, named as its configuration names them."""

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    intermediate: int
    vocabulary: int


def shape_of(config: Any) -> Shape:
    """The shape in a transformers configuration of Qwen3."""
    return Shape(
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        config.hidden_size,
        config.intermediate_size,
        config.vocab_size,
    )


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

    def ask(self, start: int, q: torch.Tensor) -> None:
        """Take rotated queries (n, heads, head_dim) from `start` on, of tokens or, in the last layer, of reads."""

    def mix(self, layer: int, *, reads_only: bool) -> torch.Tensor:
        """The values mixed for each query asked: (queries, heads * head_dim)."""


class _Layer(NamedTuple):
    q: Linear
    k: Linear
    v: Linear
    o: Linear
    gate: Linear
    up: Linear
    down: Linear
    input_norm: torch.Tensor
    mlp_norm: torch.Tensor
    q_norm: HeadNorm
    k_norm: HeadNorm


class PackedNetwork:
    """The weights of a Qwen3 causal LM, ready for packed passes.

    Takes the module apart: on CPUs its matrices are laid out anew, layer by layer, and the originals are freed.
    """

    def __init__(self, network: Any, *, is_compiled: bool = False) -> None:
        self.shape = shape_of(network.config)
        self.device, self.dtype = network.device, network.dtype
        self._do = elementwise_for(self.device, self.dtype, network.config.rms_norm_eps, is_compiled=is_compiled)
        self._embedding = network.model.embed_tokens.weight
        self._norm = network.model.norm.weight
        positions = torch.arange(network.config.max_position_embeddings, device=self.device)
        cos, sin = network.model.rotary_emb(self._embedding[:1], positions[None])
        half = self.shape.head_dim // 2
        sin = torch.cat([-sin[0, :, :half], sin[0, :, half:]], -1)  # signs folded in: rotating a half is then a plain swap
        self._cos, self._sin = cos[0].contiguous(), sin.contiguous()
        self.layers = [self._take(layer) for layer in network.model.layers]
        self._head = make_linear(network.lm_head.weight)
        widest = max(self.shape.intermediate, self.shape.heads * self.shape.head_dim)
        self.head_rows = 1024
        if self.device.type == "cpu":
            self.head_rows = max(16, LARGEST_HEAP_BLOCK // (4 * self.shape.vocabulary) // 16 * 16)
            rows = min(4096, max(256, 1 << int(math.log2(CHUNK_BYTES // (widest * 4)))))
            self.chunk = rows - 16  # no power of two: the feed-forward's outputs would lie on the same lines of the caches
            self.step = max(16, rows // STEPS)
        else:
            self.chunk, self.step = 1 << 30, 1

    @staticmethod
    def _take(layer: Any) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp

        def take(owner: Any, name: str) -> Linear:
            taken = make_linear(getattr(owner, name).weight)
            setattr(owner, name, None)
            return taken

        return _Layer(
            q=take(attention, "q_proj"),
            k=take(attention, "k_proj"),
            v=take(attention, "v_proj"),
            o=take(attention, "o_proj"),
            gate=take(mlp, "gate_proj"),
            up=take(mlp, "up_proj"),
            down=take(mlp, "down_proj"),
            input_norm=layer.input_layernorm.weight,
            mlp_norm=layer.post_attention_layernorm.weight,
            q_norm=HeadNorm.of(attention.q_norm.weight),
            k_norm=HeadNorm.of(attention.k_norm.weight),
        )

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, reads: torch.Tensor, attention: Attention, depth: int | None = None
    ) -> torch.Tensor:
        """What the head reads, (reads, hidden), of the tokens at the indices `reads`; `ids` and `positions` are (tokens,).

        The numbers of tokens and of reads are best multiples of `step`: fillers at the end change nothing for the others. `depth`:
        of a network without the layers behind the first few.
        """
        x: torch.Tensor = self._embedding[ids]
        cos, sin = self._cos[positions], self._sin[positions]
        chunks = [slice(at, min(at + self.chunk, len(ids))) for at in range(0, len(ids), self.chunk)]
        last = (depth or len(self.layers)) - 1
        for index, layer in enumerate(self.layers[:last]):
            for part in chunks:
                h = self._do.norm(x[part], layer.input_norm)
                attention.store(index, part.start, *self._keys(layer, h, cos[part], sin[part]))
                attention.ask(part.start, self._queries(layer, h, cos[part], sin[part]))
            mixed = attention.mix(index, reads_only=False)
            for part in chunks:
                self._finish(layer, x[part], mixed[part])
        layer = self.layers[last]
        for part in chunks:
            attention.store(last, part.start, *self._keys(layer, self._do.norm(x[part], layer.input_norm), cos[part], sin[part]))
        read = x[reads]
        attention.ask(0, self._queries(layer, self._do.norm(read, layer.input_norm), cos[reads], sin[reads]))
        self._finish(layer, read, attention.mix(last, reads_only=True))
        return self._do.norm(read, self._norm)

    def logits(self, read: torch.Tensor) -> torch.Tensor:
        """(n, vocabulary) for (n, hidden); best not for more than `head_rows` at once."""
        return self._head(read)

    def _keys(self, layer: _Layer, h: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (len(h), self.shape.kv_heads, self.shape.head_dim)
        return self._do.rotate(layer.k(h).view(shape), layer.k_norm, cos, sin), layer.v(h).view(shape)

    def _queries(self, layer: _Layer, h: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        q = layer.q(h).view(len(h), self.shape.heads, self.shape.head_dim)
        return self._do.rotate(q, layer.q_norm, cos, sin)

    def _finish(self, layer: _Layer, x: torch.Tensor, mixed: torch.Tensor) -> None:
        """Add attention's output and the feed-forward network to `x`, in place."""
        x.add_(layer.o(mixed))
        h = self._do.norm(x, layer.mlp_norm)
        x.add_(layer.down(self._do.gate(layer.gate(h), layer.up(h))))
