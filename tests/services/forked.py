"""Processes of guardfleet from the fork server, with the part of `subprocess.Popen` that tests use."""

import contextlib
import functools
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parents[2]


class ForkServer:
    """The fork server of this test process; it ends with it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.services.forkserver", str(theirs.fileno())],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._lines = ours.makefile("rw", encoding="utf-8")
        self._one_at_a_time = threading.Lock()

    def ask(self, **request: Any) -> Any:
        """Return its answer; raises EOFError when it has ended."""
        with self._one_at_a_time:
            self._lines.write(f"{json.dumps(request)}\n")
            self._lines.flush()
            if not (line := self._lines.readline()):
                raise EOFError(f"the fork server has ended with {self._process.wait()}")
        return json.loads(line)


_STARTING = threading.Lock()


def fork_server() -> ForkServer:
    """Return this process's, which two threads do not start twice."""
    with _STARTING:
        return _started()


@functools.cache
def _started() -> ForkServer:
    """Start the fork server at the first call."""
    return ForkServer()


class ForkedProcess:
    """A command of guardfleet, running in this process's folder; `err` goes to `out` unless given."""

    def __init__(
        self, args: Sequence[str], environment: Mapping[str, str], out: pathlib.Path, err: pathlib.Path | None = None
    ) -> None:
        self.returncode: int | None = None
        out.touch()  # so that a reader need not wait for the child
        self.pid: int = fork_server().ask(
            args=list(args), environment=dict(environment), folder=str(pathlib.Path.cwd()), out=str(out), err=str(err or out)
        )

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        if self.returncode is None:
            self.returncode = fork_server().ask(pid=self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit status once it has ended; raises subprocess.TimeoutExpired."""
        if self.poll() is None:
            descriptor = os.pidfd_open(self.pid)  # it stays a zombie until it is waited for, so this id is still its own
            try:
                if not select.select([descriptor], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
            finally:
                os.close(descriptor)
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)
