"""Isolation of failures within a tick: an error in one unit stops only that unit.

Invariant: of what a step or one of its units raises, only AwayError for PostgreSQL leaves `attempt`, since every step needs it.
What raised is logged, counted, and set aside, for longer each time; the other units and all other steps continue in the same tick.
Only this process knows what is set aside: a standby that takes over tries it at once, and a shard's own row says when it is due.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from guardfleet.errors import AwayError, RetryableError
from guardfleet.store.postgres.sqlstate import DATABASE
from guardfleet.telemetry import metrics
from guardfleet.telemetry.logs import get_logger, told

FIRST_S, LONGEST_S = 1.0, 60.0  # how long a unit is set aside
LONGEST_AWAY_S = 5.0  # the same for a retryable error: the unit is not at fault
MOST_KNOWN = 10_000
T = TypeVar("T")
Unit = TypeVar("Unit", bound=Hashable)
Key = tuple[str, Hashable]


@dataclass
class Bulkhead:
    """What is set aside, by step and unit. `ping` raises AwayError while PostgreSQL is down."""

    ping: Callable[[], None]
    clock: Callable[[], float]
    away: RetryableError | None = None  # the last outage met; the reader may reset it
    _failures: dict[Key, int] = field(default_factory=dict)
    _until: dict[Key, float] = field(default_factory=dict)

    def attempt(self, step: str, do: Callable[[], T], unit: Hashable = None) -> T | None:
        """Call `do` unless the unit is set aside; None if it is or `do` raised. Raises only AwayError, while PostgreSQL is down."""
        key = step, unit
        metrics.RAISED.labels(step)  # begins at 0
        if self.clock() < self._until.get(key, 0.0):
            return None
        try:
            done = do()
        except Exception as error:  # noqa: BLE001 - the invariant above
            self._set_aside(key, error)
            return None
        self._failures.pop(key, None)
        self._until.pop(key, None)
        return done

    def each(self, step: str, units: Sequence[Unit], do: Callable[[Unit], T]) -> list[T]:
        """Call `do` for each unit in turn. A retryable error ends the round: every other unit would wait as long for the service.

        If PostgreSQL raised it, the unit is set aside, so that the next round begins with another.
        """
        done = []
        for unit in units:
            before = self.away
            result = self.attempt(step, lambda unit=unit: do(unit), unit)  # type: ignore[misc]
            if result is not None:
                done.append(result)
            if self.away is not before:
                break
        return done

    def sweep(self, step: str, units: Sequence[Unit], do: Callable[[Sequence[Unit]], T]) -> list[T]:
        """Call `do` once for all units; if that raises, for each alone, so that only the unit at fault is set aside."""
        if not units:
            return []
        try:
            return [do(units)]
        except Exception:  # noqa: BLE001 - `each` reports the unit that raises alone
            return self.each(step, units, lambda unit: do([unit]))

    def aside(self, step: str) -> list[Hashable]:
        """Return the units that the step has to skip now."""
        now = self.clock()
        return [unit for (name, unit), until in self._until.items() if name == step and unit is not None and now < until]

    def _set_aside(self, key: Key, error: Exception) -> None:
        if isinstance(error, AwayError) and error.service != DATABASE:
            self.away = error  # no unit is set aside for it: the dispatcher waits
            return
        step, unit = key
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        is_away = isinstance(error, RetryableError)
        delay_s = min(LONGEST_AWAY_S if is_away else LONGEST_S, FIRST_S * 2 ** min(failures - 1, 10))
        self._until[key] = self.clock() + delay_s
        metrics.RAISED.labels(step).inc()
        say = get_logger().warning if is_away else get_logger().error
        say("step_raised", step=step, unit=None if unit is None else str(unit), retry_in_s=delay_s, **told(error))
        self._forget_old()
        if isinstance(error, RetryableError):
            self.ping()
            self.away = error

    def _forget_old(self) -> None:
        """Forget units whose time is over, once more than MOST_KNOWN are known."""
        if len(self._until) > MOST_KNOWN:
            now = self.clock()
            for key in [key for key, until in self._until.items() if until < now]:
                del self._until[key], self._failures[key]
