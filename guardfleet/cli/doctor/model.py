"""The model: torch and the device, its files, its memory, and what becomes of texts that are too long for it."""

import importlib.util
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from guardfleet.cli import detector_workers
from guardfleet.cli.doctor.findings import Caution, Check, Pitfall, TroubleError
from guardfleet.cli.doctor.texts import LongTexts
from guardfleet.domain.verdict import GUARD
from guardfleet.errors import ConfigurationError
from guardfleet.process import disk
from guardfleet.settings import Settings

if TYPE_CHECKING:
    from worker.engine.model.inspection import FoundModel
    from worker.engine.model.memory import Device

MemoryOf = Callable[[Any], "Device | None"]  # of a torch.device, now
WORKER = "pip install 'guardfleet[worker]'"
IMPORTING = "importing torch and transformers"
SHOWN = 8  # labels of a detector
READING = 0.7  # of the time, until when texts are read: what was counted until then is still to be said
ROOM = 1 << 30  # bytes that a disk should have beside a model that is downloaded to it


def checks(
    settings: Settings, *, texts: Sequence[str] = (), within_s: float, memory_of: MemoryOf | None = None
) -> Iterator[list[Check]]:
    """Yield the chains of checks of the model. `texts`: files whose texts are measured, for most of `within_s`.

    The device is a chain of its own: it imports torch while the hub is asked for the model.
    """
    seen = _Seen(settings, memory_of)
    driver = "look at `nvidia-smi`, or set GUARDFLEET_ENGINE__DEVICE=cpu."
    yield [Check("device", seen.device, driver, Pitfall.VERSIONS, slow=IMPORTING)]
    path = "give GUARDFLEET_ENGINE__MODEL the folder that holds config.json and all *.safetensors, or a hub name (docs/doctor.md)."
    chain = [Check("model path", seen.path, path, Pitfall.MODEL_PATH)]
    if not _missing() and settings.engine.detector != GUARD:
        chain.append(Check("model", seen.labels, path, Pitfall.MODEL_PATH, after=("model path",), slow=IMPORTING))
    elif not _missing():
        room = "use a smaller model, eight bits (GUARDFLEET_ENGINE__QUANTIZE), or a device with more memory (docs/engine.md)."
        long = "set GUARDFLEET_ENGINE__WINDOW_TOKENS and GUARDFLEET_ENGINE__LONG_TEXTS (docs/long-texts.md)."
        measured = partial(seen.long_texts, texts, time.monotonic() + READING * within_s)
        chain += [
            Check("model", seen.files, path, Pitfall.MODEL_PATH, after=("model path",), slow=IMPORTING),
            Check("memory", seen.memory, room, Pitfall.MEMORY, slow=IMPORTING),
            Check("long texts", measured, long, Pitfall.LONG_INPUT, after=("model path", "model")),
        ]
    yield chain if _missing() else [*chain, *_detectors(settings, path)]


def _detectors(settings: Settings, path: str) -> Iterator[Check]:
    """Yield a check for the model of each detector that the settings name, as its worker would load it."""
    for name, model in detector_workers.served(settings).items():
        own = settings.model_copy(update={"engine": settings.engine.judging_as(name, model)})
        advice = path.replace("GUARDFLEET_ENGINE__MODEL", f"GUARDFLEET_DETECTORS={name}=")
        yield Check(f"detector {name}", _Seen(own, None).labels_at_path, advice, Pitfall.MODEL_PATH, slow=IMPORTING)


def _missing() -> list[str]:
    return [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]


class _Seen:
    """What the checks of one chain have learned so far."""

    def __init__(self, settings: Settings, memory_of: MemoryOf | None) -> None:
        self._asked, self._settings, self._memory_of = settings.engine, settings, memory_of
        self._found: FoundModel | None = None
        self._tokenizer: Any = None
        self._is_offline = False  # the model comes from the hub's cache, because the hub cannot be reached

    def path(self) -> str:
        """Look for the model without torch, so that a wrong name is said at once on any machine."""
        from worker.engine.model import hub
        from worker.engine.model.model_files import folder_of
        from worker.engine.model.weights import require_servable, require_stored, stored_in

        name = self._asked.model
        folder = folder_of(name, self._asked.detector)
        if folder is None:
            try:
                self._is_offline = hub.is_only_cached(name, self._asked.revision)
            except ConfigurationError as error:
                taken = f"{name!r} was taken for a hub name, because {Path.cwd()} has no such folder"
                raise TroubleError(str(error), f"{taken}: give a folder by its whole path.") from error
            return f"{name}, {'a copy of it in the cache, as the hub cannot be reached' if self._is_offline else 'on the hub'}"
        if self._asked.detector == GUARD:
            require_servable(name, SimpleNamespace(**{"model_type": None, **_config_in(folder)}))
        require_stored(name, folder)
        return f"{folder}, with {len(stored_in(folder))} files of weights"

    def device(self) -> str | Caution:
        if missing := _missing():
            raise TroubleError(
                f"{' and '.join(missing)} not installed.", f"{WORKER}; a machine that only submits or dispatches needs none."
            )
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
        from worker.engine.families.detector import labels_as
        from worker.engine.families.family import Family, family_of
        from worker.engine.model import inspection

        self._found = found = inspection.find(self._asked.model, self._asked.revision, is_offline=self._is_offline)
        self._tokenizer = tokenizer = inspection.tokenizer_for(found)
        labels_as(found.name, family_of(tokenizer) or Family("qwen3guard"), GUARD, "")  # one that gives labels is no guard
        if found.folder is None:
            return self._downloads(found)
        n_bytes = inspection.require_loadable(found, tokenizer)
        return f"{found.called}, {_size(n_bytes)} of weights, complete; {found.max_positions:,} positions"

    def labels(self) -> str | Caution:
        """Say what the model says as a detector, and how windows become one."""
        from worker.engine.detector_model import detector_model
        from worker.process.main import spec_of

        asked, found = self._asked, detector_model(spec_of(self._settings))
        listed = ", ".join(found.labels[:SHOWN]) + (f" and {len(found.labels) - SHOWN} more" if len(found.labels) > SHOWN else "")
        neutral = f"{found.neutral} finds nothing" if found.neutral else "each is found apart"
        said = f"{found.called}, {found.kind}, judges as {asked.detector}, with the labels {listed}; {neutral}"
        said += f"; windows of a long text become one by {asked.window_rule!r}"
        said += f"; fewer than {asked.min_tokens} tokens are too short" if asked.min_tokens else ""
        if found.is_here:
            return said
        return Caution(f"{said}; the first worker downloads its weights", f"`hf download {asked.model}` does it beforehand.")

    def labels_at_path(self) -> str | Caution:
        """Do as `path`, then as `labels`."""
        self.path()
        return self.labels()

    def _downloads(self, found: "FoundModel") -> str | Caution:
        """Say what is still to be downloaded, and whether there is room. Raises ConfigurationError."""
        from huggingface_hub import constants

        from worker.engine.model.inspection import sizes_of
        from worker.engine.model.memory import Precision, weights_bytes

        if found.is_offline:
            raise ConfigurationError(f"model {found.name!r} is in the hub's cache only partly, and the hub cannot be reached.")
        n_bytes = weights_bytes(sizes_of(found.config), Precision("bfloat16"))
        cache = Path(constants.HF_HUB_CACHE)
        if (free := disk.free_bytes(cache)) < n_bytes + ROOM:
            fix, there = "free room there, or set HF_HOME to a folder on another disk.", disk.nearest(cache)
            raise TroubleError(f"{found.name} is not downloaded, and takes {_size(n_bytes)}; {there} has {_size(free)}.", fix)
        said = f"{found.name} is on the hub, and the first worker downloads {_size(n_bytes)} to {cache}"
        return Caution(said, f"`hf download {found.name}` does it beforehand.")

    def memory(self) -> str | Caution:
        from worker.engine.decoding.batch_budget import cpu_bytes
        from worker.engine.model.inspection import sizes_of
        from worker.engine.model.loading import device_for, dtype_for
        from worker.engine.model.memory import Precision, device_of, largest, plan_for

        try:
            on = device_for(self._asked.device, self._asked.quantize)
        except ConfigurationError:
            return Caution("how much there is cannot be known without the device", "see `device`.")
        dtype = dtype_for(on, self._asked.quantize) if self._asked.dtype == "auto" else self._asked.dtype
        precision, device = Precision(dtype, self._asked.quantize), (self._memory_of or device_of)(on)
        if device is None:
            return Caution(f"how much {on} has is not known here", "see that the model loads: `guardfleet worker`.")
        fitting = largest(precision, device)
        if self._found is None:
            said = f"the largest model that fits on {device.name} is {fitting}" if fitting else f"no model fits on {device.name}"
            return Caution(f"{said}; what this one needs is not known without its config.json", "see `model path`.")
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

    def long_texts(self, files: Sequence[str], deadline: float) -> str | Caution:
        if self._found is None:
            raise AssertionError  # the check comes after that of the model's files
        return LongTexts(self._settings, self._tokenizer, self._found.max_positions).said(files, deadline)


def _config_in(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{folder / 'config.json'} cannot be read ({type(error).__name__}): download it again.") from error
    return found if isinstance(found, dict) else {}


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
