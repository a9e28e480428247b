"""The pass on CPUs: tokens in chunks whose activations stay in the caches, products by oneDNN."""

import math
from typing import Any, NamedTuple

import torch

from worker.engine.device import LARGEST_HEAP_BLOCK
from worker.engine.forward.elementwise import HeadNorm, elementwise_for
from worker.engine.forward.linear import Linear, Linears, make_linear
from worker.engine.forward.network import Attention, Product, Tables, Taken, products_of
from worker.engine.model.shape import shape_of

CHUNK_BYTES = 8 << 20  # widest activation of one chunk, so that it stays in the caches
STEPS = 64  # possible sizes of a pass's last chunk: oneDNN compiles kernels for each


QUERIES, KEYS_VALUES = slice(0, 1), slice(1, 3)


class _Layer(NamedTuple):
    qkv: Linears
    o: Linear
    gate_up: Linears
    down: Linear
    input_norm: torch.Tensor
    mlp_norm: torch.Tensor
    q_norm: HeadNorm
    k_norm: HeadNorm


class CpuNetwork:
    """As `network.PackedNetwork`. The matrices are repacked layer by layer, and the originals freed."""

    def __init__(self, network: Any, *, is_compiled: bool = False) -> None:
        self.shape = shape_of(network.config)
        self.device, self.dtype = network.device, network.dtype
        self._do = elementwise_for(self.device, self.dtype, network.config.rms_norm_eps, is_compiled=is_compiled)
        self._norm = network.model.norm.weight
        self._tables = Tables.of(network)
        self._layers = [_layer(Taken.of(layer)) for layer in network.model.layers]
        self._head = make_linear(network.lm_head.weight)
        widest = max(self.shape.intermediate, self.shape.heads * self.shape.head_dim)
        self.head_rows = max(16, LARGEST_HEAP_BLOCK // (4 * self.shape.vocabulary) // 16 * 16)
        rows = min(4096, max(256, 1 << int(math.log2(CHUNK_BYTES // (widest * 4)))))
        self.chunk = rows - 16  # not a power of two: the feed-forward's outputs would share cache lines
        self.step = max(16, rows // STEPS)

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, reads: torch.Tensor, attention: Attention, depth: int | None = None
    ) -> torch.Tensor:
        """As `network.PackedNetwork.forward`."""
        x = self._tables.embedding[ids]
        cos, sin = self._tables.cos[positions], self._tables.sin[positions]
        chunks = [slice(at, min(at + self.chunk, len(ids))) for at in range(0, len(ids), self.chunk)]
        last = (depth or len(self._layers)) - 1
        for index, layer in enumerate(self._layers[:last]):
            for part in chunks:
                q, k, v = layer.qkv(self._do.norm(x[part], layer.input_norm))
                attention.store(index, part.start, self._rotated(k, layer.k_norm, cos[part], sin[part]), self._heads(v))
                attention.ask(part.start, self._rotated(q, layer.q_norm, cos[part], sin[part]))
            mixed = attention.mix(index, reads_only=False)
            for part in chunks:
                self._finish(layer, x[part], mixed[part])
        layer = self._layers[last]
        for part in chunks:
            k, v = layer.qkv(self._do.norm(x[part], layer.input_norm), KEYS_VALUES)
            attention.store(last, part.start, self._rotated(k, layer.k_norm, cos[part], sin[part]), self._heads(v))
        read = x[reads]
        (q,) = layer.qkv(self._do.norm(read, layer.input_norm), QUERIES)
        attention.ask(0, self._rotated(q, layer.q_norm, cos[reads], sin[reads]))
        self._finish(layer, read, attention.mix(last, reads_only=True))
        return self._do.norm(read, self._norm)

    def logits(self, read: torch.Tensor) -> torch.Tensor:
        """As `network.PackedNetwork.logits`."""
        return self._head(read)

    def products(self) -> list[tuple[int, Product]]:
        """As `network.PackedNetwork.products`."""
        return products_of(self.shape, [(layer.qkv, layer.o, layer.gate_up, layer.down) for layer in self._layers])

    def _heads(self, projected: torch.Tensor) -> torch.Tensor:
        return projected.view(len(projected), -1, self.shape.head_dim)

    def _rotated(self, projected: torch.Tensor, norm: HeadNorm, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        return self._do.rotate(self._heads(projected), norm, cos, sin)

    def _finish(self, layer: _Layer, x: torch.Tensor, mixed: torch.Tensor) -> None:
        """Add the attention's output and the feed-forward network to `x`, in place."""
        x.add_(layer.o(mixed))
        gate, up = layer.gate_up(self._do.norm(x, layer.mlp_norm))
        x.add_(layer.down(self._do.gate(gate, up)))


def _layer(taken: Taken) -> _Layer:
    return _Layer(
        Linears([taken.q, taken.k, taken.v]),
        make_linear(taken.o),
        Linears([taken.gate, taken.up]),
        make_linear(taken.down),
        taken.input_norm,
        taken.mlp_norm,
        HeadNorm.of(taken.q_norm),
        HeadNorm.of(taken.k_norm),
    )
