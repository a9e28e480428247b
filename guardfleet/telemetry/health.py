"""Health: what a process says of itself, in one word and with reasons.

A thread looks at each part every few seconds, so that no probe waits for a server that is silent. A part that is a server (it has
an address) is logged when it goes away, once a minute while it is away, and when it is back.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

from guardfleet.errors import GuardfleetError
from guardfleet.telemetry import metrics
from guardfleet.telemetry.logs import get_logger, told

LOOK_S = 2.0
REMIND_S = 60.0  # between two lines about the same outage
BLIND_S = 60.0  # after which the last look says nothing any more

Look = Callable[[], str | None]  # what is wrong, or None


class Status(IntEnum):
    """In one word. `UNHEALTHY`: it cannot work; `DEGRADED`: it works, or will in a moment, and somebody should know."""

    UNHEALTHY = 0
    DEGRADED = 1
    HEALTHY = 2


@dataclass(frozen=True, slots=True)
class Part:
    """Something that a process needs. Without a part that `is_vital` it cannot work; `address` is that of a server."""

    name: str
    look: Look
    is_vital: bool = True
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The status, a reason for each part that is wrong, and why the process is not ready, or None.

    `in_public`: the same without details, which can name hosts and users.
    """

    status: Status
    reasons: tuple[str, ...]
    not_ready: str | None

    def in_public(self) -> "Report":
        """Return the report for a port that strangers reach."""
        brief = tuple(f"{name}: cannot be used" if said else name for name, _, said in (r.partition(": ") for r in self.reasons))
        return Report(self.status, brief, brief[0] if self.not_ready else None)


@dataclass
class Health:
    """The health of one process. Starting: not ready until `ready()`, and whatever `phase()` says is the reason."""

    live: Look = lambda: None
    clock: Callable[[], float] = time.monotonic
    _parts: dict[str, Part] = field(default_factory=dict, init=False)
    _wrong: dict[str, str | None] = field(default_factory=dict, init=False)  # by part; one that was not looked at yet is missing
    _away: dict[str, list[float]] = field(default_factory=dict, init=False)  # by server: since when, and when it was last said
    _phase: tuple[str, float] | None = field(init=False)
    _looked_at: float = field(init=False)
    _status: Status | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _wake: threading.Event = field(default_factory=threading.Event, init=False)
    _stopped: threading.Event = field(default_factory=threading.Event, init=False)
    _thread: threading.Thread | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Begin unready."""
        self._looked_at = self.clock()
        self._phase = ("starting", self._looked_at)

    def add(self, part: Part) -> None:
        """Look at this part from now on; replaces one of the same name."""
        self._parts = {**self._parts, part.name: part}
        self._wake.set()

    def phase(self, what: str) -> None:
        """Say what the process does before it is ready: `loading the model`."""
        self._phase = (what, self.clock())

    def ready(self) -> None:
        """Say that the process has started."""
        self._phase = None
        self._wake.set()

    def start(self) -> None:
        """Look regularly; safe to call twice."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="health", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop looking; safe to call twice."""
        self._stopped.set()
        self._wake.set()

    def refresh(self) -> None:
        """Look now, unless another thread is looking: for a probe that may wait for a server."""
        if self._lock.acquire(blocking=False):
            try:
                self._look()
            finally:
                self._lock.release()

    def look(self) -> None:
        """Look at each part, and log what has changed."""
        with self._lock:
            self._look()

    def _look(self) -> None:
        for part in list(self._parts.values()):
            self._wrong[part.name] = wrong = _looked(part)
            if part.address is not None:
                self._server(part, wrong)
        self._looked_at = self.clock()
        report = self.report()
        metrics.HEALTH.set(report.status)
        if report.status is not self._status:
            self._status = report.status
            get_logger().info("health_changed", health=report.status.name.lower(), reasons=list(report.reasons))

    def report(self) -> Report:
        """Return what is known now, without looking."""
        vital: list[str] = []
        other: list[str] = []
        if wrong := self.live():
            vital.append(wrong)
        blind_s = self.clock() - self._looked_at
        if blind_s > BLIND_S:
            vital.append(f"nothing was looked at for {blind_s:.0f} s")
        for part in self._parts.values():
            if wrong := self._wrong.get(part.name, "not looked at yet"):
                (vital if part.is_vital else other).append(f"{part.name}: {wrong}")
        phase = self._phase
        starting = [f"{phase[0]} for {self.clock() - phase[1]:.0f} s"] if phase else []
        status = Status.UNHEALTHY if vital else Status.DEGRADED if other or starting else Status.HEALTHY
        return Report(status, (*starting, *vital, *other), next(iter((*starting, *vital)), None))

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._wake.clear()
            self.look()
            self._wake.wait(LOOK_S)

    def _server(self, part: Part, wrong: str | None) -> None:
        """Log the beginning of an outage, once a minute that it goes on, and its end."""
        now, away = self.clock(), self._away.get(part.name)
        metrics.DEPENDENCY_UP.put((part.name,), 0 if wrong else 1)
        log = get_logger().bind(dependency=part.name, address=part.address)
        if wrong and away is None:
            self._away[part.name] = [now, now]
            metrics.OUTAGES.labels(part.name).inc()
            log.warning("outage_began", reason=wrong)
        elif wrong and away is not None and now - away[1] >= REMIND_S:
            away[1] = now
            log.warning("outage_goes_on", seconds=round(now - away[0]), reason=wrong)
        elif not wrong and away is not None:
            del self._away[part.name]
            log.info("outage_ended", seconds=round(now - away[0]))


def _looked(part: Part) -> str | None:
    try:
        return part.look()
    except GuardfleetError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a look that raises is a part that is wrong, and costs no other its look
        return told(error)["reason"]
