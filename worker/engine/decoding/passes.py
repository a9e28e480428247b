"""A network on its device and the passes over it: streams, workspaces, prefixes. It knows neither prompts nor answers."""

from collections import deque
from collections.abc import Callable

import numpy as np
import torch

from worker.engine.decoding.logits import Reading, Reads
from worker.engine.device import has_bf16_units, tensor_of
from worker.engine.forward.attention import VarlenAttention, Workspace
from worker.engine.forward.cpu_attention import HeadwiseAttention, RowwiseAttention, fastest
from worker.engine.forward.cpu_network import CpuNetwork
from worker.engine.forward.fused_network import FusedNetwork
from worker.engine.forward.geometry import Ints, Prefix, Rows
from worker.engine.forward.network import Attention, PackedNetwork
from worker.engine.model.loading import LoadedModel
from worker.engine.streams import ahead_of, open_streams, streams_for

Causal = type[VarlenAttention | HeadwiseAttention | RowwiseAttention]


class Passes:
    """`ahead`, `streams` and `as_on_cuda`: as `PackedBackend`'s. Takes the loaded network apart."""

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        is_compiled: bool = False,
        ahead: int | None = None,
        streams: int = 0,
        as_on_cuda: bool | None = None,
    ) -> None:
        self.is_cuda = loaded.device.type == "cuda" if as_on_cuda is None else as_on_cuda
        make = FusedNetwork if self.is_cuda else CpuNetwork
        self.network: PackedNetwork = make(loaded.network, is_compiled=is_compiled)
        self.streams = streams_for(loaded.device, streams)
        opened = open_streams(self.streams)
        self.start = opened.submit
        self.ahead = ahead_of(loaded.device, self.streams) if ahead is None else ahead
        self.kept = torch.bfloat16 if loaded.is_quantized and not self.is_cuda and has_bf16_units() else self.network.dtype
        self.free = deque(self.workspace() for _ in range(self.ahead + 1))
        shape = self.network.shape
        nothing = torch.empty(shape.layers, 2, shape.kv_heads, 0, shape.head_dim, dtype=self.kept, device=loaded.device)
        self.nothing = Prefix((), nothing)
        self.causal: Causal = VarlenAttention if self.is_cuda else fastest(shape, self.kept, opened, self.streams)

    def workspace(self) -> Workspace:
        """Return memory for another pass."""
        return Workspace(self.network.shape, self.network.device, self.kept)

    @torch.inference_mode()
    def compute(self, reading: Reading, ids: Ints, positions: Ints, reads: Ints, attention: Callable[[], Attention]) -> Reads:
        """Compute a pass on a stream, and what `reading` takes from its logits at `reads`."""
        hidden = self.hidden(ids, positions, reads, attention())
        found = Reads(reading)
        for at in range(0, len(reads), self.network.head_rows):
            part = hidden[at : at + self.network.head_rows]
            found.add(self.network.logits(part)[: len(reads) - at])
        return found

    def hidden(self, ids: Ints, positions: Ints, reads: Ints, attention: Attention, depth: int | None = None) -> torch.Tensor:
        """Return the head's input at `reads`, followed by fillers; `depth`: use only this many layers."""
        step, device = self.network.step, self.network.device
        filled = (np.pad(values, (0, -len(values) % step)) if step > 1 else values for values in (ids, positions, reads))
        on_device = [tensor_of(values, device) for values in filled]
        return self.network.forward(on_device[0], on_device[1], on_device[2], attention, depth)

    @torch.inference_mode()
    def prefix(self, ids: tuple[int, ...], reading: Reading) -> Prefix:
        """Compute the keys and values of what prompts begin with, in a workspace that is free now."""
        geometry = Rows([len(ids)], [1], [self.nothing])
        workspace = self.free[0]
        self.compute(reading, np.array(ids), geometry.positions(), geometry.reads(), lambda: self.causal(workspace, geometry))
        return Prefix(ids, workspace.kv[:, :, :, : len(ids)].clone())
