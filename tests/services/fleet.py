"""A fleet of real processes, and waiting for what they do."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from guardfleet.settings import Settings
from tests.services.forked import ForkedProcess
from tests.services.patience import patience

PATIENCE_S = patience(180.0)  # how long a test waits for an event: a crowded machine takes a minute to start a worker
T = TypeVar("T")


def until(look: Callable[[], T], *, timeout_s: float = PATIENCE_S, what: str = "the condition") -> T:
    """The first truthy result of `look`; fails if there is none in time."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what} did not come true in {timeout_s} s"
        time.sleep(0.02)
    return found


class Process:
    """One guardfleet process."""

    def __init__(self, settings: Settings, *args: str, log: pathlib.Path, module: str = "guardfleet") -> None:
        self.log = log
        environment = os.environ | settings.as_environment()
        self.process = ForkedProcess(args, environment, log) if module == "guardfleet" else started(module, args, environment, log)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Its exit status."""
        return self.process.wait(timeout_s)

    def says(self, slug: str) -> bool:
        """Whether the slug is in its log."""
        return f'"message": "{slug}"' in self.log.read_text(errors="replace")

    def until_says(self, slug: str, timeout_s: float = PATIENCE_S) -> None:
        """Wait for a line in its log."""

        def look() -> bool:
            assert self.process.poll() is None or self.says(slug), f"it ended first:\n{self.log.read_text()[-3000:]}"
            return self.says(slug)

        until(look, timeout_s=timeout_s, what=f"{slug} in {self.log.name}")

    def stop(self) -> None:
        """Terminate it, and kill it if it does not end."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(patience(10))
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def started(module: str, args: Sequence[str], environment: dict[str, str], log: pathlib.Path) -> subprocess.Popen[bytes]:
    """A new interpreter, for a module that changes guardfleet before running it."""
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, *args],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


@contextmanager
def fleet(settings: Settings, folder: pathlib.Path, *commands: Sequence[str]) -> Iterator[list[Process]]:
    """Run guardfleet processes; all end with the block."""
    running: list[Process] = []
    try:
        for at, args in enumerate(commands):
            running.append(Process(settings, *args, log=folder / f"{at}-{args[0]}.log"))
        yield running
    finally:
        for process in reversed(running):
            process.stop()
