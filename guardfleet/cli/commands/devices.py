"""`guardfleet worker --devices`: one supervised worker process per device. A host may have several devices."""

import threading

from guardfleet.cli import DONE, UNUSABLE
from guardfleet.errors import ConfigurationError
from guardfleet.process.signals import on_termination
from guardfleet.process.supervisor import Child, free_shards
from guardfleet.settings import Settings, variable_of
from guardfleet.telemetry.logs import get_logger

LOOK_S = 1.0


def run(settings: Settings, wanted: str) -> int:
    """Run until SIGTERM or Ctrl-C. A worker that dies is restarted; one that cannot be configured ends all of them."""
    stopping = threading.Event()
    on_termination(stopping.set)
    children = [
        Child(f"worker-{rank}-{device}", ["worker"], environment(settings, device, rank), None, after_death=free_shards(settings))
        for rank, device in enumerate(devices_of(wanted))
    ]
    for child in children:
        child.start()
    try:
        while not stopping.wait(LOOK_S):
            if any(child.gave_up for child in children):
                return UNUSABLE
    finally:
        for child in children:  # all of them drain at the same time
            child.ask_to_stop()
        for child in children:
            child.stop()
        get_logger().info("workers_stopped", count=len(children))
    return DONE


def devices_of(wanted: str) -> list[str]:
    """Return device names for `all` GPUs of the host, or a list such as `0,1` or `cuda:0,cpu`. Raises ConfigurationError."""
    if wanted == "all":
        from worker.engine.device import gpus

        found = gpus()
        if not found:
            raise ConfigurationError("--devices all: torch sees no GPU on this machine; leave the option out to run on the CPU.")
        return found
    names = [name.strip() for name in wanted.split(",")]
    if not all(names):
        raise ConfigurationError(f"--devices {wanted!r}: give `all`, or names or numbers separated by commas, such as 0,1.")
    return [f"cuda:{name}" if name.isdigit() else name for name in names]


def environment(settings: Settings, device: str, rank: int) -> dict[str, str]:
    """Return a worker's variables: the command line's options, its device, and its own metrics port if a fixed one is set."""
    out = {
        variable_of("device"): device,
        variable_of("model"): settings.engine.model,
        variable_of("named_only"): str(settings.worker.named_only),
    }
    if settings.metrics_port:
        out[variable_of("metrics_port")] = str(settings.metrics_port + rank)
    return out
