"""Reading a model from where it is, whatever its kind: found, pinned, read once, and the same files from first to last."""

import logging
import pathlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from guardfleet.errors import ConfigurationError
from worker.engine.model import hub
from worker.engine.model.model_files import digest_of, folder_of

Soundness = Callable[[str, pathlib.Path], None]  # refuses files that the library would silently read wrongly or skip


@dataclass(frozen=True)
class Source:
    """Where a model's files are: in a `folder`, or on the hub. `revision`: the one that was asked for of a hub's.

    `memory`: folder that remembers digests of model files. `require_sound` looks at the files as soon as they are here.
    """

    name: str
    folder: pathlib.Path | None
    revision: str | None
    is_offline: bool  # the hub cannot be reached: its cache is read
    memory: pathlib.Path | None
    require_sound: Soundness

    @classmethod
    def of(
        cls, name: str, detector: str | None = None, *, revision: str | None, memory: pathlib.Path | None, require_sound: Soundness
    ) -> "Source":
        """Find the model. `detector`: whose demo model `demo` is."""
        folder = folder_of(name) if detector is None else folder_of(name, detector)
        is_offline = folder is None and hub.is_only_cached(name, revision)
        return cls(name, folder, revision, is_offline, memory, require_sound)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turn the library's errors into one that says where the model was read from."""
        away = " from the hub's cache, because the hub cannot be reached" if self.is_offline else ""
        with translating(self.name, away):
            yield

    def config(self, require: Callable[[Any], None]) -> Any:
        """Return the model's configuration, once it is what `require` asks for. Raises ConfigurationError."""
        with self.reading():
            config = transformers.AutoConfig.from_pretrained(self.where, **self.asked(self.revision))
            require(config)
            if self.folder:
                self.require_sound(self.name, self.folder)
        return config

    def pinned(self) -> "Pinned":
        """Return the files as they are now: a branch name may move meanwhile, and means nothing later."""
        if self.folder:
            return Pinned(self, self.folder, digest_of(self.folder, self.memory))
        files = hub.snapshot_of(self.name, self.revision)
        return Pinned(self, files, files.name)

    @property
    def where(self) -> str:
        """The folder, or the name on the hub, as the library takes it."""
        return str(self.folder) if self.folder else self.name

    def asked(self, revision: str | None) -> dict[str, Any]:
        """Return what the library is to be asked for besides."""
        return {"revision": revision, "local_files_only": self.is_offline}


@dataclass(frozen=True)
class Pinned:
    """The files of a source at one moment; `revision` names them."""

    source: Source
    files: pathlib.Path
    revision: str

    def read(self, kind: Any, dtype: torch.dtype) -> tuple[Any, Any, Any]:
        """Return the tokenizer, the network of this kind of the library, and its report on weights. Raises ConfigurationError."""
        source = self.source
        asked = source.asked(source.revision if source.folder else self.files.name)
        with source.reading():
            tokenizer = transformers.AutoTokenizer.from_pretrained(source.where, **asked)
            network, report = kind.from_pretrained(
                source.where,
                dtype=dtype,
                output_loading_info=True,
                use_safetensors=True,
                **asked,
            )
            if not source.folder:  # only now it has them
                source.require_sound(source.name, self.files)
        return tokenizer, network, report

    def require_unchanged(self) -> None:
        """Raise ConfigurationError if a folder's files are not those that were pinned: what was read may be of both."""
        folder = self.source.folder
        if folder and digest_of(folder, self.source.memory) != self.revision:
            raise ConfigurationError(
                f"model folder {self.source.name!r} changed while it was loaded: start again when it is complete."
            )


@contextmanager
def translating(name: str, away: str) -> Iterator[None]:
    """Turn the library's many error classes into one: this model cannot be used."""
    try:
        yield
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(f"model {name!r} cannot be loaded{away}: {sentence(error)}") from error


def detach(network: Any) -> None:
    """Copy weights that are memory-mapped from the file: whoever writes to it later would change what judges."""
    for weight in network.parameters():
        if weight.device.type == "cpu":
            weight.data = weight.data.clone()


def quiet() -> None:
    """Keep the libraries from writing what nobody asked for."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for noisy in ("torchao", "torch.utils._pytree"):  # transformers warns of kernels for other GPUs, and of deprecations
        logging.getLogger(noisy).setLevel(logging.ERROR)


def sentence(error: Exception) -> str:
    """Return the first line of a library's error, plus the next if it only announces it, and its class if it says little."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    said = " ".join(lines[: 1 + lines[0].endswith(":")])[:300]
    speaks = bool(said) and isinstance(error, OSError | ValueError | RuntimeError)
    return said if speaks else f"{type(error).__name__}: {said}".rstrip(": ")
