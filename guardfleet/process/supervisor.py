"""Run guardfleet's own processes as children: start, watch, restart and stop them in order."""

import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress

from guardfleet.process import lifeline
from guardfleet.process.readiness import DESCRIPTOR
from guardfleet.settings import Settings
from guardfleet.settings.names import for_child
from guardfleet.store.postgres.database import Database
from guardfleet.store.shards import leases
from guardfleet.telemetry.logs import get_logger

STOP_TIMEOUT_S = 30.0
RESTART_S = (0.2, 1.0, 5.0, 15.0)  # pauses before a restart; a process that lived for a minute starts over at the first
HEALTHY_S = 60.0
EARLY_DEATHS = 3  # of a process that was never ready; it is not started again
HEARD_S = 1.0  # its output is there once it has ended, unless a descendant holds the pipe
CONFIGURATION_STATUS = 2  # not worth a retry: a wrong setting, or a package that cannot be imported
CANNOT_START = "No module named guardfleet"  # Python's own message, with status 1


class Child:
    """One supervised process, in a session of its own so that Ctrl-C reaches only the parent; it ends with the parent."""

    def __init__(
        self,
        name: str,
        args: Sequence[str],
        environment: Mapping[str, str],
        log: pathlib.Path | None,
        *,
        after_death: Callable[[int], bool] = lambda pid: False,
    ) -> None:
        """`after_death`: called with the pid of a process that died by itself; returns whether it held work, and so could work."""
        self.name = name
        self._args, self._environment, self._log = list(args), dict(environment), log
        self._after_death = after_death
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None  # closes when this process ends, and the child ends with it; nothing is written
        self._stopping, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._supervise, name=f"child-{name}", daemon=True)
        self._hearing: threading.Thread | None = None  # ends with the process, or once that is ready
        self._log_from = 0  # size of the log when the process was started
        self._worked, self._early_deaths = False, 0  # whether any process was ever able to work; how many ended before
        self.gave_up: str | None = None  # why it is not started again

    @property
    def pid(self) -> int | None:
        """The pid of the running process."""
        return self._process.pid if self._process else None

    @property
    def is_ready(self) -> bool:
        """Whether the running process has reported that it is ready."""
        return self._ready.is_set()

    def start(self) -> None:
        """Start the process and watch it from a thread."""
        self._spawn()
        self._thread.start()

    def ask_to_stop(self) -> None:
        """Send SIGTERM; returns at once."""
        self._stopping.set()
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Send SIGTERM, then SIGKILL after a while; safe to call twice."""
        self.ask_to_stop()
        if self._process is None:
            return
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._let_go()

    def last_words(self) -> str:
        """Return the last line that the latest process wrote to its log, for an error message."""
        if self._log is None or not self._log.exists():
            return ""
        with self._log.open(errors="replace") as file:
            file.seek(self._log_from)
            lines = file.read().strip().splitlines()
        return lines[-1][-500:] if lines else ""

    def _spawn(self) -> None:
        out = self._log.open("ab") if self._log else None
        self._log_from = out.tell() if out else 0
        hear, say = os.pipe()
        held, lifeline_end = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "guardfleet", *self._args],
                env=for_child(os.environ, self._environment) | {DESCRIPTOR: str(say), lifeline.DESCRIPTOR: str(held)},
                pass_fds=(say, held),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        except BaseException:
            os.close(hear)
            os.close(lifeline_end)
            raise
        finally:
            os.close(say)
            os.close(held)
            if out:
                out.close()
        self._let_go()
        self._lifeline = lifeline_end
        self._ready = threading.Event()  # of this process: the last one's report no longer counts
        self._hearing = threading.Thread(target=_hear, args=(hear, self._ready), name=f"hear-{self.name}", daemon=True)
        self._hearing.start()
        get_logger().info("child_started", child=self.name, pid=self._process.pid)

    def _let_go(self) -> None:
        """Close the lifeline of a dead process."""
        held, self._lifeline = self._lifeline, None
        if held is not None:
            os.close(held)

    def _supervise(self) -> None:
        deaths = 0
        while self._process is not None:
            started = time.monotonic()
            status = self._process.wait()
            if self._stopping.is_set():
                return
            get_logger().warning("child_exited", child=self.name, status=status)
            self._worked = self._was_ready() or self._worked
            self.gave_up = self._why_not_again(self._process.pid, status)
            if self.gave_up is not None:
                get_logger().error("child_given_up", child=self.name, status=status)
                return
            deaths = 1 if time.monotonic() - started > HEALTHY_S else deaths + 1
            if self._stopping.wait(RESTART_S[min(deaths, len(RESTART_S)) - 1]):
                return
            self._spawn()
            if self._stopping.is_set():  # stop() may have missed the process just started
                self.ask_to_stop()

    def _was_ready(self) -> bool:
        """Return whether the process that ended had reported that it was ready."""
        if self._hearing is not None:
            self._hearing.join(HEARD_S)
        ready, self._ready = self._ready, threading.Event()
        return ready.is_set()

    def _why_not_again(self, pid: int, status: int) -> str | None:
        """Return why it should not be started again, for the user; also release what the dead process held."""
        if status == CONFIGURATION_STATUS or CANNOT_START in self.last_words():
            return self.last_words() or f"{self.name} ended with status {status}"
        self._worked = self._after_death(pid) or self._worked
        self._early_deaths += 1
        if self._worked or self._early_deaths < EARLY_DEATHS:
            return None
        rest = "what it wrote is above" if self._log is None else f"the rest is in {self._log}"
        said = f": {self.last_words()}" if self.last_words() else ", without a word"
        return f"{self.name} ended {self._early_deaths} times before it was ready, the last time {_how(status)}{said}; {rest}."


def _how(status: int) -> str:
    """Say how a process ended, from `Popen`'s status."""
    if status >= 0:
        return f"with status {status}"
    name = signal.Signals(-status).name
    return f"by {name} (is the machine out of memory?)" if name == "SIGKILL" else f"by {name}"


def _hear(descriptor: int, ready: threading.Event) -> None:
    with os.fdopen(descriptor, "rb") as pipe:
        if pipe.read(1):  # nothing is read if the process ended first
            ready.set()


def free_shards(settings: Settings) -> Callable[[int], bool]:
    """Return a callback that takes back at once the shards that a dead worker held; other processes hold none.

    It is called for each death and returns whether there were any. Its errors are only logged: the leases run out anyway, and
    the next process must be started.
    """

    def after_death(pid: int) -> bool:
        try:
            with closing(Database(settings.required("database_url"), pool_size=1)) as db:
                freed = leases.expire_leases_of(db, leases.holder(pid))
        except Exception as error:  # noqa: BLE001 - see above
            get_logger().warning("shards_not_freed", reason=f"{type(error).__name__}: {error}".splitlines()[0])
            return False
        if freed:
            get_logger().info("shards_freed", count=freed)
        return bool(freed)

    return after_death
