"""Writes this worker's row every few seconds: that it is there, what it does, and what it can do; and looks what it should do."""

import threading
from collections.abc import Callable

from guardfleet.domain.detection import route_to
from guardfleet.domain.states import WorkerState
from guardfleet.domain.verdict import Model
from guardfleet.errors import GuardfleetError
from guardfleet.store import fleet
from guardfleet.store.fleet import Sighting
from guardfleet.store.postgres.database import Database
from guardfleet.telemetry import metrics
from guardfleet.telemetry.logs import get_logger, told

REPORT_S = 2.0
Rates = Callable[[], tuple[float | None, float | None]]
Occupied = Callable[[], tuple[str | None, int, int]]  # the device, its bytes in use, and all; zeros: it has none


class Presence:
    """Reports from a thread of its own; an outage of PostgreSQL costs reports, and nothing else."""

    def __init__(self, db: Database, name: str) -> None:
        self._db, self._name = db, name
        self._state = WorkerState.LOADING
        self._model: Model | None = None
        self._rates: Rates = lambda: (None, None)
        self._occupied: Occupied = lambda: (None, 0, 0)
        self._look: Callable[[], None] = lambda: None
        self._changed = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Report that the model is being loaded."""
        self._thread.start()

    def ready(self, model: Model, rates: Rates) -> None:
        """Report from now on that the worker takes work, with this model, and what `rates` measures."""
        self._model, self._rates, self._state = model, rates, WorkerState.READY
        self._changed.set()

    def occupies(self, occupied: Occupied) -> None:
        """Report from now on which device the worker has, and how full it is."""
        self._occupied = occupied

    def follow(self, look: Callable[[], None]) -> None:
        """Call this after each report from now on: it reads and writes rows, and waits for nothing else."""
        self._look = look

    def stop(self) -> None:
        """Report the end, if PostgreSQL is there; safe to call twice."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._changed.set()
            self._thread.join(REPORT_S)
            self._state = WorkerState.STOPPED
            self._report()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._report()
            self._changed.wait(REPORT_S)
            self._changed.clear()

    def _report(self) -> None:
        model, (tokens_per_s, tokens_per_byte) = self._model, self._rates()
        device, used_bytes, total_bytes = self._occupied()
        if tokens_per_s is not None:
            metrics.RATE.set(tokens_per_s)
        seen = Sighting(
            self._name,
            self._state,
            route_to(model) if model else None,
            model.revision if model else None,
            tokens_per_s,
            tokens_per_byte,
            device,
            used_bytes if total_bytes else None,
            total_bytes or None,
        )
        try:
            fleet.report(self._db, seen)
            if self._state is WorkerState.READY:
                self._look()
        except GuardfleetError:
            return  # the health thread says that PostgreSQL is away
        except Exception as error:  # noqa: BLE001 - a worker that stops reporting counts as gone
            get_logger().error("swap_failed", **told(error))
