"""Run small first passes in one launch: CUDA graphs recorded at load for a few sizes and each mode's prefix, then replayed.

A pass of a few hundred tokens takes a GPU less time than the host needs to launch its kernels one by one. A graph serves passes
whose rows all have the prefix it was recorded with. All others go the ordinary way, and so does a pass that comes while a graph
runs: graphs share the memory that they compute in.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch

from worker.engine.decoding.first_pass import FirstPass
from worker.engine.decoding.fixed_pass import FixedPass, Size
from worker.engine.decoding.logits import LabelTokens, Reads
from worker.engine.decoding.modes import Mode
from worker.engine.decoding.partial_answers import PromptRow
from worker.engine.device import probe, tensor_of
from worker.engine.forward.attention import GROW, SPARE, VarlenAttention, Workspace
from worker.engine.forward.network import PackedNetwork
from worker.engine.interfaces import Answer, Collect, Prepared
from worker.engine.model.memory import device_of, kept_bytes
from worker.engine.model.shape import Shape

SIZES = tuple(Size(tokens) for tokens in (128, 256, 512, 1024, 2048))
LAUNCHES, LAUNCH_S = 17, 5e-6  # per layer, counted (docs/decisions/0018), and the host's minimum time for one
FLOPS = 5e14  # what an H200 sustains in 16 bits; on a slower GPU fewer sizes would be worth their fillers
MOST_BYTES, FREE_SHARE = 256 << 20, 1 / 16  # of keys and values: the maximum, and the share of the device's free memory
WARM_UPS = 2  # compile kernels and let libraries allocate memory before recording
OFF = 1 / 16  # relative to its size: how far a 16-bit sum may differ from the same sum in another order

Run = Callable[[], torch.Tensor]


class Capture(Protocol):
    """Records what the device does."""

    def __call__(self, run: Run) -> Run:
        """Record `run`, and return a function that repeats it on the current numbers in the same memory, giving the same tensor.

        Earlier work of the device has finished by then.
        """


class CudaCapture:
    """Records with CUDA graphs, which share a pool of memory: none may be replayed while another's result is needed."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()
            self._stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, run: Run) -> Run:
        """As `Capture`."""
        with torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UPS):
                    run()
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile, as long as only this one records.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                out = run()

        def replay() -> torch.Tensor:
            graph.replay()
            return out

        return replay


class _Graph(NamedTuple):
    fixed: FixedPass
    replay: Run


@dataclass(frozen=True)
class Flight:
    """A pass under way: `done` holds what is read, the workspace its keys and values until it is collected."""

    done: "Future[Reads]"
    workspace: Workspace
    land: Callable[[], None]

    def until(self, collect: Collect) -> Collect:
        """Wrap `collect` so that the memory is free for the next pass afterwards, whatever the outcome."""

        def collected() -> Sequence[Answer | Prepared]:
            try:
                return collect()
            finally:
                self.land()

        return collected


class Graphs:
    """The recorded graphs by prefix, smallest first. Belongs to the engine thread."""

    def __init__(self, label_tokens: LabelTokens, workspace: Workspace, by_prefix: dict[int, list[_Graph]]) -> None:
        self._label_tokens, self._workspace, self._by_prefix = label_tokens, workspace, by_prefix
        self._is_free = True

    def launch(self, first: FirstPass) -> Flight | None:
        """Replay the smallest graph that fits the pass; None if it must go the ordinary way."""
        rows = first.geometry
        (prefix, _), *others = rows.groups
        fitting = (graph for graph in self._by_prefix.get(id(prefix), ()) if graph.fixed.size.takes(rows))
        graph = next(fitting, None)
        if graph is None or others or not self._is_free:
            return None
        self._is_free = False  # stays False if the following raises: nobody knows what the device is still doing
        graph.fixed.fill(first)
        reads = Reads(self._label_tokens)
        reads.take(graph.replay()[: rows.n_reads])
        done: Future[Reads] = Future()
        done.set_result(reads)
        return Flight(done, self._workspace, self._land)

    def _land(self) -> None:
        self._is_free = True


def record(
    network: PackedNetwork, label_tokens: LabelTokens, workspace: Workspace, modes: Iterable[Mode], capture: Capture
) -> Graphs | None:
    """Record the sizes worth it and compare each with the ordinary pass; None if there are none, or any disagrees."""
    sizes = sizes_for(network)
    if not sizes:
        return None
    try:
        with torch.inference_mode():
            workspace.fit(sizes[-1].tokens)  # from now on it stays where it is
            make = functools.partial(_recorded, network, label_tokens, workspace, capture)
            # The largest first: the others fit into what it leaves in the pool.
            by_prefix = {id(mode.prefix): [made for size in sizes[::-1] if (made := make(size, mode))][::-1] for mode in modes}
    except RuntimeError as error:
        probe(network.device, error)
        said = (str(error).strip().splitlines() or [""])[0][:200]
        log = logging.getLogger(__name__)
        log.warning("engine_no_graphs: small passes are launched kernel by kernel, because of %s: %s", type(error).__name__, said)
        return None
    return Graphs(label_tokens, workspace, by_prefix)


def sizes_for(network: PackedNetwork) -> list[Size]:
    """Return the sizes whose launch takes longer than their arithmetic, as far as their keys and values fit."""
    shape, on = network.shape, device_of(network.device)
    room = MOST_BYTES if on is None else min(MOST_BYTES, FREE_SHARE * on.free)
    each = kept_bytes(shape, network.dtype.itemsize)
    return [size for size in SIZES if is_launch_bound(shape, size) and -(-(size.tokens + SPARE) // GROW) * GROW * each <= room]


def is_launch_bound(shape: Shape, size: Size) -> bool:
    """Estimate whether a GPU waits for the host in each layer of such a pass."""
    weights = shape.hidden * (2 * (shape.heads + shape.kv_heads) * shape.head_dim + 3 * shape.intermediate)
    return 2 * weights * size.tokens / FLOPS < LAUNCHES * LAUNCH_S


def _recorded(
    network: PackedNetwork, label_tokens: LabelTokens, workspace: Workspace, capture: Capture, size: Size, mode: Mode
) -> _Graph | None:
    """Record a graph and check it with the ordinary pass on other rows; None if not even one draft fits."""
    seen, unseen = (_rows(size, mode, network.shape.vocabulary, seed) for seed in (1, 2))
    if not size.takes(seen.geometry):
        return None
    fixed = FixedPass(network, label_tokens, workspace, size, mode.prefix)
    fixed.fill(seen)
    replay = capture(fixed.table)
    rows = unseen.geometry
    on_device = [tensor_of(values, network.device) for values in (unseen.ids, rows.positions(), rows.reads())]
    hidden = network.forward(on_device[0], on_device[1], on_device[2], VarlenAttention(workspace, rows))
    right, kept = label_tokens.table(network.logits(hidden)), workspace.kv[:, :, :, : rows.tokens]
    right_kept = kept.clone()
    kept.zero_()
    fixed.fill(unseen)
    found = replay()[: rows.n_reads]
    if not (_is_near(kept, right_kept) and _is_near(found[:, 1:], right[:, 1:])):
        raise RuntimeError(f"a recorded pass of {size.tokens} tokens disagrees with the ordinary one")
    return _Graph(fixed, replay)


def _rows(size: Size, mode: Mode, vocabulary: int, seed: int) -> FirstPass:
    """Return rows of made-up tokens that nearly fill a pass, as many as its reads allow."""
    n = max(1, min(size.rows, size.reads // (len(mode.draft.parents) + 1)))
    dice = np.random.default_rng(seed)
    owns = [max(1, size.tokens // n - mode.n_drafted - i * seed) for i in range(n)]
    ids = [dice.integers(0, vocabulary, own, np.int32) for own in owns]
    return FirstPass([PromptRow(some, mode, mode.prefix, len(some) + mode.n_drafted, len(some)) for some in ids])


def _is_near(found: torch.Tensor, right: torch.Tensor) -> bool:
    off, size = (values.float().square().mean().sqrt() for values in (found.float() - right.float(), right))
    return bool(off <= OFF * size)
