"""The models of a worker process: one judges, another may be beside it, to judge a share or to be compared.

A shard is given one judge when it is claimed and keeps it to its end, so that its verdicts come from one model and name it. A model
that is replaced serves the shards that it has, and is stopped after the last.
"""

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from celery.exceptions import Reject

from guardfleet.domain.verdict import Model
from worker.moderation.judge import Judge


@dataclass(eq=False)
class Seat:
    """A judge, the deployment that brought it (None: the process's settings), and how many shards it has; `Seats` guards that."""

    judge: Judge
    deployment_id: int | None = None
    shards: int = 0

    @property
    def model(self) -> Model:
        """The model that judges."""
        return self.judge.model


@dataclass(frozen=True, slots=True)
class Beside:
    """A model beside the one that judges: it judges this share of the shards, or is only compared (`judges` is false)."""

    seat: Seat
    share: float
    judges: bool


class Seats:
    """Thread-safe. `main` is None while the process has no model: one is out, the next is not in yet."""

    def __init__(self, main: Seat) -> None:
        self._main: Seat | None = main
        self._beside: Beside | None = None
        self._retired: list[Seat] = []
        self._changed = threading.Condition()
        self._is_draining = False

    @property
    def main(self) -> Seat | None:
        """The seat that judges."""
        return self._main

    @property
    def beside(self) -> Beside | None:
        """What is beside it."""
        return self._beside

    @contextmanager
    def take(self, job: int, shard: int) -> Iterator[list[Judge]]:
        """Lend the judges that may have this shard, the preferred one first. While there is none its message goes back (Reject).

        The second is there for a shard that names its model.
        """
        with self._changed:
            if self._main is None:
                raise Reject("the model is being replaced", requeue=True)
            seats = [self._main]
            beside = self._beside
            if beside is not None and beside.judges and is_among(beside.seat.deployment_id, job, shard, share=beside.share):
                seats.insert(0, beside.seat)
            for seat in seats:
                seat.shards += 1
        try:
            yield [seat.judge for seat in seats]
        finally:
            with self._changed:
                for seat in seats:
                    seat.shards -= 1
                self._changed.notify_all()

    def put_beside(self, beside: Beside | None) -> None:
        """Have this model beside from now on, in place of any other; None: no model."""
        with self._changed:
            old = self._beside
            self._beside = beside
            if old is not None and (beside is None or old.seat is not beside.seat):
                self._retired.append(old.seat)
            self._drain_new()

    def put_in(self, seat: Seat | None) -> None:
        """Have this one judge from now on; it may be the one that is beside. None: no model judges until the next is put in."""
        with self._changed:
            old = self._main
            if self._beside is not None and self._beside.seat is seat:
                self._beside = None
            self._main = seat
            if seat in self._retired:  # it was to go, and did not
                self._retired.remove(seat)
            if old is not None and old is not seat:
                self._retired.append(old)
            self._drain_new()

    def stop_retired(self, *, timeout_s: float) -> bool:
        """Stop the engines that were replaced, once their last shards have ended; return False if that takes too long."""
        with self._changed:
            retired = list(self._retired)
            is_idle = self._changed.wait_for(
                lambda: self._is_draining or not any(seat.shards for seat in retired), timeout=timeout_s
            )
        for seat in retired if is_idle else ():
            seat.judge.engine.stop(timeout_s)
            with self._changed:
                self._retired.remove(seat)
        return is_idle

    def drain(self) -> None:
        """Drain all engines, those that come later too."""
        with self._changed:
            self._is_draining = True
            self._changed.notify_all()
            for seat in self._all():
                seat.judge.engine.drain()

    def stop(self, timeout_s: float) -> None:
        """Drain all engines and wait for their threads."""
        self.drain()
        for seat in self._all():
            seat.judge.engine.stop(timeout_s)

    def busy_s(self) -> float:
        """Return how long the oldest batch on the device has been running; 0 if there is none."""
        return max((seat.judge.engine.busy_s() for seat in self._all()), default=0.0)

    def memory_bytes(self) -> tuple[int, int]:
        """Return how much of the device's memory is in use, and how much it has; the engines share a process, and so a figure."""
        return max((seat.judge.engine.memory_bytes() for seat in self._all()), default=(0, 0))

    def device(self) -> str | None:
        """Return the device, as torch names it; None while no model is there."""
        return next((seat.judge.engine.device for seat in self._all()), None)

    def in_use(self) -> list[Model]:
        """Return the models that judge."""
        beside = self._beside
        seats = [self._main, beside.seat if beside is not None and beside.judges else None]
        return [seat.model for seat in seats if seat is not None]

    def _all(self) -> list[Seat]:
        beside = self._beside
        seats = (self._main, beside.seat if beside else None, *self._retired)
        return [seat for seat in seats if seat is not None]

    def _drain_new(self) -> None:
        if self._is_draining:
            for seat in self._all():
                seat.judge.engine.drain()


def is_among(deployment_id: int | None, job: int, shard: int, *, share: float) -> bool:
    """Return whether the shard is of the share that a deployment's model judges: always the same, whoever asks."""
    return zlib.crc32(b"%d:%d:%d" % (deployment_id or 0, job, shard)) < share * (1 << 32)
