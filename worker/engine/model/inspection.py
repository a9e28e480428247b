"""Look at a model without reading its weights: their headers name every one, its size and its type.

What loading would refuse is refused here, in seconds even for 16 GB. What only numbers show (damage inside a weight, a pass that
disagrees with transformers') is found at load.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open

from guardfleet.errors import ConfigurationError
from worker.engine.model import hub
from worker.engine.model.loading import require_guard, require_sound
from worker.engine.model.memory import Sizes
from worker.engine.model.model_files import folder_of, name_of
from worker.engine.model.shape import shape_of
from worker.engine.model.source import quiet, translating
from worker.engine.model.weights import require_complete, require_safe, require_servable, require_stored, stored_in


@dataclass(frozen=True)
class FoundModel:
    """A model whose config.json was read and is one that guardfleet serves."""

    name: str
    where: str  # what the library takes: a folder, or a hub name
    folder: Path | None  # None: its files are on the hub, and not all of them here
    revision: str | None
    config: Any
    is_offline: bool  # the hub cannot be reached

    @property
    def called(self) -> str:
        """Its name in verdicts."""
        return name_of(self.name)

    @property
    def max_positions(self) -> int:
        """Tokens of the longest prompt and answer."""
        return int(self.config.max_position_embeddings)


def find(name: str, revision: str | None = None, *, is_offline: bool = False) -> FoundModel:
    """Find a model and read its config.json. Raises ConfigurationError if it is nowhere, or not one that guardfleet serves.

    `is_offline`: it is on the hub, which cannot be reached (`hub.is_only_cached`).
    """
    quiet()
    folder = folder_of(name)
    with translating(name, ""):
        config = transformers.AutoConfig.from_pretrained(str(folder or name), revision=revision, local_files_only=is_offline)
        require_servable(name, config)
        shape_of(config)
    if folder is None:
        snapshot = hub.snapshot_of(name, revision)
        folder = snapshot if is_whole(snapshot) else None
    return FoundModel(name, str(folder or name), folder, revision, config, is_offline)


def sizes_of(config: Any) -> Sizes:
    """Return the sizes in a config.json."""
    return Sizes(shape_of(config), bool(getattr(config, "tie_word_embeddings", False)))


def is_whole(folder: Path) -> bool:
    """Return whether all files of weights are in the folder."""
    files = stored_in(folder)
    return bool(files) and all(file.is_file() for file in files)


def tokenizer_for(found: FoundModel) -> Any:
    """Return its tokenizer and chat template. Raises ConfigurationError."""
    with translating(found.name, ""):
        return transformers.AutoTokenizer.from_pretrained(
            found.where, revision=None if found.folder else found.revision, local_files_only=found.is_offline
        )


def require_loadable(found: FoundModel, tokenizer: Any) -> int:
    """Return the bytes of the weights in its folder. Raises ConfigurationError for what loading would refuse."""
    folder = found.folder
    if folder is None:
        raise ValueError("its files are on the hub")
    with translating(found.name, ""):
        require_safe(found.name, folder)
        files = stored_in(folder)
        require_stored(found.name, folder)
        stored = headers(found.name, files)
        require_sound(found.name, folder)
        network = _outlined(found, folder)
        require_guard(found.name, network, tokenizer)
    expected = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    filled = {"lm_head.weight"} if found.config.tie_word_embeddings else set()  # from the embedding
    both = expected.keys() & stored.keys()
    require_complete(
        found.name,
        {
            "missing_keys": expected.keys() - stored.keys() - filled,
            "mismatched_keys": {name for name in both if expected[name] != stored[name][0]},
            "unexpected_keys": stored.keys() - expected.keys(),
        },
    )
    return sum(n_bytes for _, n_bytes in stored.values())


def headers(name: str, files: list[Path]) -> dict[str, tuple[tuple[int, ...], int]]:
    """Return each weight's shape and bytes. Raises ConfigurationError for a file that is shorter than its header says."""
    out: dict[str, tuple[tuple[int, ...], int]] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as stored:
                for key in stored.keys():  # noqa: SIM118 - it is not a mapping
                    part = stored.get_slice(key)
                    shape = tuple(part.get_shape())
                    out[key] = shape, math.prod(shape) * (4 if part.get_dtype() == "F32" else 2)
        except SafetensorError as error:
            raise ConfigurationError(
                f"model {name!r}: {file.name} is damaged or incomplete ({str(error)[:100]}): download it again."
            ) from error
    return out


def _outlined(found: FoundModel, folder: Path) -> Any:
    """Return the network without weights, with the generation settings of its folder."""
    with torch.device("meta"):
        network = transformers.AutoModelForCausalLM.from_config(found.config)
    if (folder / "generation_config.json").is_file():
        network.generation_config = transformers.GenerationConfig.from_pretrained(str(folder))
    return network
