"""The pass on CUDA: few kernels per layer, since at 0.6B memory traffic and launches take the time, not arithmetic.

Queries, keys and values are one product, gate and up another. The work between products is one step each (`steps`), and keys and
values are written where they are stored.
"""

import itertools
from typing import Any, NamedTuple

import torch

from worker.engine.forward.linear import Linear, joined, make_linear
from worker.engine.forward.network import Attention, Product, Tables, Taken, products_of
from worker.engine.forward.steps import steps_for
from worker.engine.model.quantize import Matrix
from worker.engine.model.shape import shape_of

HEAD_ROWS = 1024


class _Layer(NamedTuple):
    qkv: Linear
    q: Linear  # of the last layer, which has few queries; shares the weights
    kv: Linear
    o: Linear
    gate_up: Linear
    down: Linear
    input_norm: torch.Tensor
    mlp_norm: torch.Tensor
    q_norm: torch.Tensor
    k_norm: torch.Tensor


class FusedNetwork:
    """As `network.PackedNetwork`; originals of joined matrices are freed, layer by layer."""

    step = 1
    head_rows = HEAD_ROWS

    def __init__(self, network: Any, *, is_compiled: bool = False) -> None:
        self.shape = shape_of(network.config)
        self.device, self.dtype = network.device, network.dtype
        self._eps: float = network.config.rms_norm_eps
        self._do = steps_for(self.device, is_compiled=is_compiled)
        self._norm = network.model.norm.weight
        self._tables = Tables.of(network)
        self._layers = [_layer(Taken.of(layer)) for layer in network.model.layers]
        self._head = make_linear(network.lm_head.weight)

    def forward(
        self, ids: torch.Tensor, positions: torch.Tensor, reads: torch.Tensor, attention: Attention, depth: int | None = None
    ) -> torch.Tensor:
        """As `network.PackedNetwork.forward`."""
        layers = self._layers[:depth]
        x = self._tables.embedding[ids]
        h = self._do.norm(x, layers[0].input_norm, self._eps)
        for index, (layer, following) in enumerate(itertools.pairwise(layers)):
            attention.ask(0, self._rotated(layer, layer.qkv(h), positions, *attention.room(index, len(ids))))
            h = self._finish(layer, x, attention.mix(index, reads_only=False), following.input_norm)
        layer, last = layers[-1], len(layers) - 1
        self._rotated(layer, layer.kv(h), positions, *attention.room(last, len(ids)))
        attention.ask(0, self._rotated(layer, layer.q(h[reads]), positions[reads], None, None))
        return self._finish(layer, x[reads], attention.mix(last, reads_only=True), self._norm)

    def logits(self, read: torch.Tensor) -> torch.Tensor:
        """As `network.PackedNetwork.logits`."""
        return self._head(read)

    def products(self) -> list[tuple[int, Product]]:
        """As `network.PackedNetwork.products`."""
        return products_of(self.shape, [(layer.qkv, layer.o, layer.gate_up, layer.down) for layer in self._layers])

    def _rotated(
        self,
        layer: _Layer,
        projected: torch.Tensor,
        positions: torch.Tensor,
        keys: torch.Tensor | None,
        values: torch.Tensor | None,
    ) -> torch.Tensor:
        """Write keys and values to their places and return the queries."""
        tables = self._tables
        return self._do.rotate(projected, layer.q_norm, layer.k_norm, tables.cos, tables.sin, positions, self._eps, keys, values)

    def _finish(self, layer: _Layer, x: torch.Tensor, mixed: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        """Add the attention's output and the feed-forward network to `x`, in place; return its norm for the next layer."""
        h = self._do.add_norm(x, layer.o(mixed), layer.mlp_norm, self._eps)
        return self._do.add_norm(x, layer.down(self._do.gate(layer.gate_up(h))), norm, self._eps)


def _layer(taken: Taken) -> _Layer:
    qkv = joined([taken.q, taken.k, taken.v])
    queries = slice(0, len(taken.q.scale) if isinstance(taken.q, Matrix) else len(taken.q))
    q, kv = (qkv.part(some) if isinstance(qkv, Matrix) else qkv[some] for some in (queries, slice(queries.stop, None)))
    return _Layer(
        qkv=make_linear(qkv),
        q=make_linear(q),
        kv=make_linear(kv),
        o=make_linear(taken.o),
        gate_up=make_linear(joined([taken.gate, taken.up])),
        down=make_linear(taken.down),
        input_norm=taken.input_norm,
        mlp_norm=taken.mlp_norm,
        q_norm=taken.q_norm,
        k_norm=taken.k_norm,
    )
