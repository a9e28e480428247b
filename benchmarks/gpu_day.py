"""A day on a GPU in minutes: steps in order of importance, each within the time left, and a file with the results so far.

A failed step leaves its reason, and the others go on. If one costs the process its device, another process continues.
"""

import argparse
import functools
import gc
import json
import math
import pathlib
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from worker.engine.bench import cli
from worker.engine.bench.scripted import SHAPES, RehearsedBackend, random_model
from worker.engine.device import probe
from worker.engine.interfaces import DeviceLostError
from worker.engine.model.quantize import require
from worker.engine.verification import attention_probe, reference

TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 16, "tie_word_embeddings": True}
PATIENCE, GRACE_S = 3.0, 10.0  # relative to a step's expected time, after which it is cut off
TAIL_LINES = 12
MOST_TEXTS = 16_384


class NotHereError(Exception):
    """A step needs something that this machine lacks; it is skipped with this reason."""


class TooLongError(Exception):
    """A step took time that belongs to others."""


@dataclass(frozen=True)
class Options:
    """The options; figures that a tiny run reduces are properties."""

    device: torch.device
    dtype: str
    tokenizer: str
    texts: pathlib.Path | None
    is_tiny: bool
    seconds: float  # per measurement

    @property
    def budgets(self) -> list[int]:
        """Tokens of a batch, for each run."""
        return [512, 1024] if self.is_tiny else [16_384, 65_536]

    @property
    def request_texts(self) -> int:
        """Texts of a bulk request."""
        return 16 if self.is_tiny else 1024

    def some_texts(self, n: int) -> list[str]:
        """Return `n` texts, repeated if there are fewer; any number of them is a mix of all kinds."""
        found = _mixed(self.texts)
        return [found[i % len(found)] for i in range(n)]


@functools.cache
def _mixed(path: pathlib.Path | None) -> list[str]:
    found = cli.texts_of(path, MOST_TEXTS)
    random.Random(1).shuffle(found)
    return found


@dataclass
class Day:
    """What the steps share: options, results, and the model on the device."""

    options: Options
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)  # by name, in the order they ran
    _model: tuple[tuple[str, str, bool], RehearsedBackend] | None = None

    def backend(self, shape: str, quantize: str = "none", *, compiled: bool = False) -> RehearsedBackend:
        """Return random weights in a shape; the last backend is kept, and freed before another is made."""
        wanted, options = (shape, quantize, compiled), self.options
        if self._model is None or self._model[0] != wanted:
            self.let_go()
            self._require(quantize)
            loaded = random_model(shape, options.tokenizer, str(options.device), options.dtype, quantize)
            self._model = wanted, RehearsedBackend(loaded, max(options.budgets), is_compiled=compiled, streams=1)
        return self._model[1]

    def _require(self, quantize: str) -> None:
        from guardfleet.errors import ConfigurationError  # noqa: PLC0415 - only needed here

        try:
            require(quantize, self.options.device)
        except ConfigurationError as error:
            raise NotHereError(str(error)) from None

    def let_go(self) -> None:
        """Free the model, and the memory that torch caches."""
        self._model = None
        gc.collect()
        if self.options.device.type == "cuda":
            torch.cuda.empty_cache()

    def wait(self) -> None:
        """Wait until the device has finished its work."""
        if self.options.device.type == "cuda":
            torch.cuda.synchronize(self.options.device)


@dataclass(frozen=True)
class Step:
    """One measurement. `takes_s`: estimates for an H200, and for a tiny run on a CPU."""

    name: str
    take: Callable[[Day], dict[str, Any]]
    takes_s: tuple[float, float]


def go_through(steps: Sequence[Step], day: Day, args: argparse.Namespace) -> dict[str, Any]:
    """Run the steps in order; return the final content of the file. `args`: minutes, out, resume, and their options."""
    began, out = time.time(), {"benchmark": "gpu day", "options": {key: str(value) for key, value in vars(args).items()}}
    if args.resume and args.out and args.out.exists():
        kept = json.loads(args.out.read_text())
        began = kept["began"] if args.resume == "at once" else began
        stays = {"done", "failed"} if args.resume == "at once" else {"done"}
        day.steps |= {name: found for name, found in kept["steps"].items() if found["status"] in stays}
    if args.tiny:
        shrink()
    for step in steps:
        if step.name in day.steps:
            continue
        left, takes = began + 60 * args.minutes - time.time(), step.takes_s[args.tiny]
        if takes > left:
            found = {"status": "skipped", "reason": f"it takes about {takes:.0f} s, and {max(0, left):.0f} s are left"}
        else:
            found = taken(step, day, min(left, PATIENCE * takes) + GRACE_S)
        day.steps[step.name] = found
        print(f"[{time.time() - began:5.0f} s] {step.name}: {found['status']} {found.get('reason', '')}".rstrip(), flush=True)
        out |= {"began": began, "seconds": round(time.time() - began, 1), "steps": day.steps}
        write(args.out, out)
        if found.get("is_device_lost"):
            sys.exit(gone_on(args))
    return out


def shrink() -> None:
    """Use a smaller shape and shorter probes: a GPU's second is a CPU's minute."""
    SHAPES["tiny"] = TINY
    attention_probe.LENGTHS, attention_probe.CONTEXTS = (1, 2, 40, 300, 400, 130), (1, 120, 300, 60)
    reference.LENGTHS, reference.TEXTS = (1, 2, 17, 60), 10


def gone_on(args: argparse.Namespace) -> int:
    """Let another process run the remaining steps, since this one has lost the device; return its status."""
    if args.out is None:
        print(json.dumps({"lost": "the device; with --out another process would go on"}))
        return 1
    given = [value for value in sys.argv if not value.startswith("--resume")]
    return subprocess.run([sys.executable, *given, "--resume=at once"], check=False).returncode


def taken(step: Step, day: Day, limit_s: float) -> dict[str, Any]:
    """Return a step's results, or why it has none."""
    started = time.perf_counter()
    found: dict[str, Any] = {}
    try:
        with limited(limit_s):
            found = {"status": "done", **plain(step.take(day))}
    except NotHereError as reason:
        found = {"status": "skipped", "reason": str(reason)}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the other steps go on
        said = (str(error).strip().splitlines() or [""])[0][:300]
        tail = traceback.format_exc().strip().splitlines()[-TAIL_LINES:]
        traceback.clear_frames(error.__traceback__)  # they hold what is on the device
        status = "skipped" if isinstance(error, TooLongError) else "failed"
        found = {"status": status, "reason": f"{type(error).__name__}: {said}", "traceback": tail}
        day.let_go()
        found |= {"is_device_lost": True} if is_lost(day.options.device, error) else {}
    return found | {"took_s": round(time.perf_counter() - started, 2)}


def plain(value: Any) -> Any:
    """Convert to what JSON allows, which has neither infinities nor NaN."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def is_lost(device: torch.device, error: BaseException) -> bool:
    """Return whether this process can no longer use the device."""
    if not isinstance(error, RuntimeError | DeviceLostError):
        return False
    try:
        probe(device, RuntimeError(str(error) or "?"))
    except DeviceLostError:
        return True
    return False


@contextmanager
def limited(limit_s: float) -> Iterator[None]:
    """Raise TooLongError in the block once it has taken so long; what waits inside a library is interrupted when that returns."""

    def raise_it(*_: object) -> None:
        raise TooLongError(f"cut off after {limit_s:.0f} s")

    before = signal.signal(signal.SIGALRM, raise_it)
    signal.setitimer(signal.ITIMER_REAL, max(0.1, limit_s))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def write(path: pathlib.Path | None, out: dict[str, Any]) -> None:
    """Write the file atomically."""
    if path is not None:
        beside = path.with_name(f"{path.name}.part")
        beside.write_text(json.dumps(out, indent=1))
        beside.replace(path)
