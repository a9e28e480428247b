"""What `guardfleet plan` counts with: the models' sizes, the devices' rates, what a text costs, each with where it is from.

A figure is measured if it has a file of benchmarks/results; everything else is an estimate. No GPU has been measured: change a
device to `measured` here, with its file as source, as soon as one has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

ENGINE_RUN = "benchmarks/results/2026-11-29-engine.md"
PIPELINE_RUN = "benchmarks/results/2026-11-21-pipeline.md"
DATA_SHEET = "vendor's data sheet, dense bf16"


@dataclass(frozen=True, slots=True)
class Shape:
    """A model: `weights` in the matrix products of one token, `pair` FLOPs of attention for two tokens, `head` for an answer's."""

    weights: float
    pair: float
    head: float


@dataclass(frozen=True, slots=True)
class Device:
    """A device: `peak` FLOP/s by its maker, or the FLOP/s of the engine itself as `measured`."""

    title: str
    peak: float | None = None
    measured: float | None = None
    source: str = DATA_SHEET


PREFIX, SUFFIX, DRAFT, READS = 201, 95, 7, 8  # tokens of a prompt besides its text, of the drafted answer, positions read
# Layers x heads x head size x 4 for a pair; 2 x width x vocabulary for a read position. Of the models' config.json.
MODELS: Mapping[str, Shape] = MappingProxyType(
    {
        "0.6B": Shape(0.440e9, 4 * 28 * 16 * 128, 2 * 1024 * 151_936),
        "4B": Shape(3.633e9, 4 * 36 * 32 * 128, 2 * 2560 * 151_936),
        "8B": Shape(6.946e9, 4 * 36 * 32 * 128, 2 * 4096 * 151_936),
    }
)
CPU_TEXTS_S = 1.31  # 0.6B, fp32, 2 cores of an AMD EPYC with AVX-512 (ENGINE_RUN)
CPU_TOKENS = 58  # of the texts of that run: 354 a prompt on average, without prefix and suffix


def flops(shape: Shape, tokens: float) -> float:
    """Return the FLOPs of one text: the prefix is computed once, the answer is drafted and verified in the same pass."""
    own = tokens + SUFFIX + DRAFT
    return 2 * shape.weights * own + shape.pair * own * (PREFIX + own / 2) + shape.head * READS


DEVICES: Mapping[str, Device] = MappingProxyType(
    {
        "h200": Device("NVIDIA H200", 989e12),
        "h100": Device("NVIDIA H100 SXM", 989e12),
        "a100": Device("NVIDIA A100", 312e12),
        "l40s": Device("NVIDIA L40S", 362e12),
        "l4": Device("NVIDIA L4", 121e12),
        "a10g": Device("NVIDIA A10G", 70e12),
        "cpu": Device("2 cores of an AMD EPYC, fp32", measured=CPU_TEXTS_S * flops(MODELS["0.6B"], CPU_TOKENS), source=ENGINE_RUN),
    }
)
MATMUL = 0.8  # assumed: of the peak, what large matrix products reach
SHARE: Mapping[str, float] = MappingProxyType({"0.6B": 0.45, "4B": 0.6, "8B": 0.6})  # assumed: of those, what the engine reaches
WORKER_TEXTS_S = 7_700.0  # one worker process with a model, whatever its device: 130 us a text of the host
WORKER_SOURCE = "docs/scaling.md, from benchmarks/results/2026-11-29-engine.md and 2026-11-21-pipeline.md"
SCALING = 0.966  # of eight times one worker (PIPELINE_RUN)
LOAD_S = 120.0  # assumed: a worker's start and its model's load
MEAN_OF_P50 = 2.0  # assumed: texts are skewed, a few long ones cost most; give --tokens-mean if it is known
SEALED_BYTES, SEALED_TOKENS = 140, 54.3  # of an encrypted text of the corpus, whose texts have so many tokens on average
VERDICT_BYTES = 214  # with its indexes
WAL_BYTES = 385  # taken in and judged, checkpoints included
POSTGRES_S = 19e-6  # of one core a text
