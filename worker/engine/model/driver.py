"""Whether torch, the driver and the GPU fit together: read from versions, so that it is known before anything is loaded."""

import importlib.util
import pathlib
import re
from dataclasses import dataclass

import torch

ROOT = pathlib.Path("/")
LEAST_DRIVERS = {11: 450, 12: 525, 13: 580}  # of NVIDIA, by CUDA's major version: it runs all of its minor versions
PACKED = (8, 0)  # compute capability from which the packed pass runs: Ampere
UNEQUAL_HEADS = (2, 11)  # torch whose own attention kernel takes fewer heads of keys than of queries


@dataclass(frozen=True)
class Stack:
    """What is installed. `cuda`: what torch was built for; `driver`: NVIDIA's; `capability`: of the GPU that torch sees."""

    torch: str
    cuda: str | None = None
    driver: str | None = None
    capability: tuple[int, int] | None = None
    has_triton: bool = True

    @property
    def is_blind(self) -> bool:
        """Whether there is a GPU that torch cannot use."""
        return self.driver is not None and self.capability is None

    def said(self) -> str:
        """Describe it."""
        parts = [f"torch {self.torch}", self.cuda and f"CUDA {self.cuda}", self.driver and f"driver {self.driver}"]
        return ", ".join(part for part in parts if part)

    def why_blind(self) -> tuple[str, str]:
        """Return why torch cannot use the GPU, and what to do."""
        if self.cuda is None:
            return (
                f"there is an NVIDIA GPU (driver {self.driver}), but torch {self.torch} is built without CUDA",
                "install torch with CUDA, as https://pytorch.org/get-started says, or set GUARDFLEET_ENGINE__DEVICE=cpu.",
            )
        least = LEAST_DRIVERS.get(_number(self.cuda), 0)
        if _number(self.driver or "") < least:
            return (
                f"torch {self.torch} is built for CUDA {self.cuda}, which needs driver {least} or newer; here is {self.driver}",
                f"update the driver to {least} or newer, or install torch for an older CUDA.",
            )
        return (
            f"torch {self.torch} (CUDA {self.cuda}) sees no GPU, though driver {self.driver} is loaded",
            "look at `nvidia-smi` and CUDA_VISIBLE_DEVICES; a container needs --gpus or the device plugin.",
        )

    def slower(self) -> tuple[str, str] | None:
        """Return why a GPU would be slower than it could be, and what to do; None if it would not."""
        if self.capability is None:
            return None
        if self.capability < PACKED:
            generation = ".".join(map(str, self.capability))
            said = f"this GPU (compute capability {generation}) is older than Ampere: padded generate judges, several times slower"
            return said, "use an Ampere GPU or newer (docs/engine.md)."
        if tuple(map(int, re.findall(r"\d+", self.torch)[:2])) < UNEQUAL_HEADS:
            said = f"torch {self.torch} may lack the packed pass's attention on GPUs: padded generate judges then"
            return said, "install torch 2.11 or newer."
        if not self.has_triton:
            return "Triton is missing: the steps between the products take several launches each", "pip install triton"
        return None


def stack(root: pathlib.Path = ROOT) -> Stack:
    """Return what is installed here."""
    try:
        said = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        said = ""
    driver = re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", said)
    sees = torch.cuda.is_available()
    return Stack(
        torch.__version__,
        torch.version.cuda,
        driver[1] if driver else None,
        torch.cuda.get_device_capability() if sees else None,
        importlib.util.find_spec("triton") is not None,
    )


def _number(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0
