"""The model: torch and the device, its files, its memory, and what becomes of texts that are too long for it."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardfleet.cli.doctor.findings import Caution, Check, Pitfall, TroubleError
from guardfleet.cli.doctor.texts import LongTexts
from guardfleet.errors import ConfigurationError
from guardfleet.settings import Settings

if TYPE_CHECKING:
    from worker.engine.model.inspection import FoundModel
    from worker.engine.model.memory import Device

MemoryOf = Callable[[Any], "Device | None"]  # of a torch.device, now
WORKER = "pip install 'guardfleet[worker]'"
ROOM = 1 << 30  # bytes that a disk should have beside a model that is downloaded to it


def checks(settings: Settings, *, texts: Sequence[str] = (), within_s: float, memory_of: MemoryOf | None = None) -> Iterator[Check]:
    """Yield the checks of the model, one chain. `texts`: files whose texts are measured, for at most half of `within_s`."""
    seen = _Seen(settings, memory_of)
    driver = "look at `nvidia-smi`, or set GUARDFLEET_ENGINE__DEVICE=cpu."
    yield Check("device", seen.device, driver, Pitfall.VERSIONS)
    path = "give GUARDFLEET_ENGINE__MODEL the folder that holds config.json and all *.safetensors, or a hub name (docs/doctor.md)."
    yield Check("model", seen.files, path, Pitfall.MODEL_PATH, after="device")
    room = "use a smaller model, eight bits (GUARDFLEET_ENGINE__QUANTIZE), or a device with more memory (docs/engine.md)."
    yield Check("memory", seen.memory, room, Pitfall.MEMORY, after="device")
    long = "set GUARDFLEET_ENGINE__WINDOW_TOKENS and GUARDFLEET_ENGINE__LONG_TEXTS (docs/long-texts.md)."
    yield Check("long texts", partial(seen.long_texts, texts, within_s / 2), long, Pitfall.LONG_INPUT, after="model")


class _Seen:
    """What the checks of one chain have learned so far."""

    def __init__(self, settings: Settings, memory_of: MemoryOf | None) -> None:
        self._asked, self._settings, self._memory_of = settings.engine, settings, memory_of
        self._found: FoundModel | None = None
        self._tokenizer: Any = None

    def device(self) -> str | Caution:
        if importlib.util.find_spec("torch") is None:
            raise TroubleError("torch is not installed.", f"{WORKER}; a machine that only submits or dispatches needs none.")
        from worker.engine.model.driver import stack
        from worker.engine.model.loading import device_for

        here = stack()
        if here.is_blind and self._asked.device != "cpu":
            said, fix = here.why_blind()
            if self._asked.device == "auto":
                return Caution(f"{said}: the model would run on the CPU", fix)
            raise TroubleError(f"{said}.", fix)
        on = device_for(self._asked.device, self._asked.quantize)
        if on.type == "cuda" and (slower := here.slower()):
            return Caution(*slower)
        return f"{on}, with {here.said()}"

    def files(self) -> str | Caution:
        from worker.engine.model import inspection

        self._found = found = self._find()
        self._tokenizer = tokenizer = inspection.tokenizer_for(found)
        if found.folder is None:
            return self._downloads(found)
        n_bytes = inspection.require_loadable(found, tokenizer)
        return f"{found.called}, {_size(n_bytes)} of weights, complete; {found.max_positions:,} positions"

    def _find(self) -> "FoundModel":
        """Find the model; an error about a name that could be a folder's says how it was understood."""
        from worker.engine.model import inspection
        from worker.engine.model.model_files import folder_of

        try:
            return inspection.find(self._asked.model, self._asked.revision)
        except ConfigurationError as error:
            if folder_of(self._asked.model) is not None:
                raise
            taken = f"{self._asked.model!r} was taken for a hub name, because {Path.cwd()} has no such folder"
            raise TroubleError(str(error), f"{taken}: give a folder by its whole path.") from error

    def _downloads(self, found: "FoundModel") -> str | Caution:
        """Say what is still to be downloaded, and whether there is room. Raises ConfigurationError."""
        from huggingface_hub import constants

        from worker.engine.model.inspection import sizes_of
        from worker.engine.model.memory import Precision, weights_bytes

        if found.is_offline:
            raise ConfigurationError(f"model {found.name!r} is in the hub's cache only partly, and the hub cannot be reached.")
        n_bytes = weights_bytes(sizes_of(found.config), Precision("bfloat16"))
        cache = Path(constants.HF_HUB_CACHE)
        there = next(path for path in (cache, *cache.parents) if path.exists())
        if (free := shutil.disk_usage(there).free) < n_bytes + ROOM:
            fix = "free room there, or set HF_HOME to a folder on another disk."
            raise TroubleError(f"{found.name} is not downloaded, and takes {_size(n_bytes)}; {there} has {_size(free)}.", fix)
        said = f"{found.name} is on the hub, and the first worker downloads {_size(n_bytes)} to {cache}"
        return Caution(said, f"`hf download {found.name}` does it beforehand.")

    def memory(self) -> str | Caution:
        from worker.engine.decoding.batch_budget import cpu_bytes
        from worker.engine.model.inspection import sizes_of
        from worker.engine.model.loading import device_for, dtype_for
        from worker.engine.model.memory import Precision, device_of, largest, plan_for

        on = device_for(self._asked.device, self._asked.quantize)
        dtype = dtype_for(on, self._asked.quantize) if self._asked.dtype == "auto" else self._asked.dtype
        precision, device = Precision(dtype, self._asked.quantize), (self._memory_of or device_of)(on)
        if device is None:
            return Caution(f"how much {on} has is not known here", "see that the model loads: `guardfleet worker`.")
        fitting = largest(precision, device)
        if self._found is None:
            said = f"the largest model that fits on {device.name} is {fitting}" if fitting else f"no model fits on {device.name}"
            return Caution(f"{said}; what this one needs is not known without its config.json", "see `model`.")
        try:
            plan = plan_for(self._found.name, self._found.config, precision, device)
        except ConfigurationError as error:
            raise TroubleError(f"{error} The largest that fits: {fitting or 'none'}.", _instead(fitting)) from error
        if plan is None:
            raise AssertionError  # the device is known
        if not device.is_cuda:
            working = cpu_bytes(sizes_of(self._found.config).shape, precision.item)
            if plan.least + working > device.free:
                return Caution(f"{plan.told()}; batches take {_size(working)} more: too little, so that it may be killed")
        return plan.told(self._asked.batch_tokens)

    def long_texts(self, files: Sequence[str], within_s: float) -> str | Caution:
        if self._found is None:
            raise AssertionError  # the check comes after that of the model's files
        return LongTexts(self._settings, self._tokenizer, self._found.max_positions).said(files, within_s)


def _instead(fitting: str | None) -> str:
    """Return the settings of the largest model that fits."""
    if fitting is None:
        return "use a device with more memory: none of the published models fits (docs/engine.md)."
    size, _, precision = fitting.partition(" in ")
    how = "QUANTIZE" if precision in ("int8", "fp8") else "DTYPE"
    return (
        f"GUARDFLEET_ENGINE__MODEL=Qwen/Qwen3Guard-Gen-{size} GUARDFLEET_ENGINE__{how}={precision}, or a device with more memory."
    )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 10**8 else f"{n_bytes / 1e6:.0f} MB"
