"""Makes this process serve what is deployed, while it serves: loads the new model, checks it, puts it in, lets the old one end.

The thread that reports the worker's presence looks what is deployed (`look`); a thread of its own does it (`_live`), since loading
takes minutes. Invariant: a model that failed anything is never put in, and what served before goes on serving.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from guardfleet.domain.states import DeploymentState
from guardfleet.domain.verdict import Model
from guardfleet.errors import ConfigurationError, GuardfleetError, NoRoomError, RetryableError
from guardfleet.store.deployments import deployments
from guardfleet.store.deployments import seats as stored
from guardfleet.store.deployments.row import Deployment
from guardfleet.telemetry import metrics
from guardfleet.telemetry.logs import get_logger, told
from worker.engine.factory import give_memory_back
from worker.moderation.seats import Seat, Seats
from worker.process.bringing import Bringer, Served
from worker.process.plan import Plan, follows, is_placed, placed, plan_of

AGAIN_S = 30.0  # before a model that cannot be brought in, and that nobody can halt, is tried again
NO_OTHER = "there is no room beside the model that is served, and no other worker serves meanwhile: start one, or restart this one"
WAITS = "waits for its turn: other workers are changing to another model"


class Follower:
    """Follows the deployments of one detector.

    `changed` is called with the model that judges after each change, and with None before there is none, to consume nothing.
    """

    def __init__(
        self,
        bringer: Bringer,
        seats: Seats,
        served: Deployment | None,
        worker: str,
        *,
        changed: Callable[[Model | None], None],
        stall_s: float,
    ) -> None:
        self._bringer, self._seats, self._served, self._worker = bringer, seats, served, worker
        self._changed, self._stall_s = changed, stall_s
        self._db, self._detector = bringer.db, bringer.settings.engine.detector
        self._follows = follows(bringer.settings)
        self._plan = Plan(served)
        self._reason: str | None = None
        self._not_before = 0.0
        self._no_room_for: tuple[int | None, ...] = ()  # the deployment that was found not to fit beside what is served
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._live, name="follow", daemon=True)

    def start(self) -> None:
        """Start following."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no change any more; one that has begun ends with the process. Safe to call twice."""
        self._stopped.set()
        self._wake.set()

    def look(self) -> None:
        """Read what is deployed, write what this process serves, and make what was rolled out active if all serve it."""
        before, self._plan = self._plan.ids, self._wanted()
        if self._plan.ids != before:
            self._not_before = 0.0
        stored.report(self._db, self._row())
        main = self._plan.main
        if main is not None and main.told is DeploymentState.ROLLING and self._serves(main):
            deployments.settle(self._db, main, partial(stored.all_serve, detector=self._detector, deployment_id=main.id))
        if self._differs():
            self._wake.set()
        else:
            self._reason = None

    def _wanted(self) -> Plan:
        return plan_of(deployments.standing(self._db, self._detector)) if self._follows else Plan(self._served)

    def wrong(self) -> str | None:
        """Return why the process does not serve what is deployed, or None."""
        return self._reason

    def _row(self) -> stored.Seat:
        main, beside = self._seats.main, self._seats.beside
        served = main.deployment_id if main else None
        beside_id = beside.seat.deployment_id if beside else None
        return stored.Seat(self._worker, self._detector, served, beside_id, self._follows, self._reason)

    def _serves(self, deployment: Deployment | None) -> bool:
        main = self._seats.main
        return main is not None and main.deployment_id == (deployment.id if deployment else None)

    def _differs(self) -> bool:
        return not self._serves(self._plan.main) or not is_placed(self._seats.beside, self._plan.beside)

    def _live(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stopped.is_set():
                return
            if time.monotonic() < self._not_before:
                continue
            try:
                self._follow(self._plan)
            except RetryableError as error:  # the next look tries again
                self._reason = str(error)
            except Exception as error:  # noqa: BLE001 - without this thread the process would never follow again
                get_logger().error("swap_failed", **told(error))
                self._pause("the change failed in this worker; its log says where")

    def _follow(self, plan: Plan) -> None:
        beside = self._seats.beside
        if not self._serves(plan.main):
            if beside is not None and plan.main is not None and beside.seat.deployment_id == plan.main.id:
                self._put_in(beside.seat, plan.main)
            else:
                self._try(plan.main, self._swap)
            return
        if beside is not None and (plan.beside is None or plan.beside.id != beside.seat.deployment_id):
            self._seats.put_beside(None)
            self._end_retired()
            self._announce()
        if plan.beside is not None and self._seats.beside is None:
            self._try(plan.beside, self._put_beside)
        elif plan.beside is not None and self._seats.beside is not None:  # another share
            self._seats.put_beside(placed(self._seats.beside.seat, plan.beside))

    def _try(self, deployment: Deployment | None, act: Callable[[Deployment | None], None]) -> None:
        """Do it; if the model fails, halt a deployment that is being tried, and otherwise say so and try again later."""
        label = _label(deployment)
        try:
            act(deployment)
        except ConfigurationError as error:
            get_logger().error("swap_failed", deployment=label, reason=str(error))
            if deployment is None or not deployments.halt(self._db, deployment, f"{self._worker}: {error}"):
                self._pause(f"cannot serve {label}: {error}")

    def _put_beside(self, deployment: Deployment | None) -> None:
        served = self._engine_served()
        if deployment is None or served is None:
            return
        with self._turn(alone=False) as is_granted:
            if not is_granted:
                return
            self._begin(deployment, is_beside=True)
            try:
                seat = self._brought(deployment, served=served)
            except NoRoomError as error:
                raise ConfigurationError(f"it cannot be beside the model that is served: {error}") from error
            if seat is None:
                return
            self._seats.put_beside(placed(seat, deployment))
            self._reason = None
            self._announce()
            get_logger().info("swap_done", deployment=deployment.label, beside=True, revision=seat.model.revision[:12])

    def _swap(self, deployment: Deployment | None) -> None:
        """Change to another model: beside the one that serves if there is room, otherwise in its place."""
        wanted = deployment.id if deployment else None
        is_alone = (deployment is not None and deployment.alone) or self._no_room_for == (wanted,)
        if not is_alone and not self._swap_beside(deployment):
            return
        self._no_room_for = (wanted,)
        with self._turn(alone=True) as is_granted:
            if is_granted and not self._stopped.is_set():
                self._begin(deployment, is_beside=False)
                self._swap_alone(deployment)

    def _swap_beside(self, deployment: Deployment | None) -> bool:
        """Return whether there is no room for it."""
        with self._turn(alone=False) as is_granted:
            if not is_granted:
                return False
            self._begin(deployment, is_beside=True)
            try:
                seat = self._brought(deployment, served=self._engine_served())
            except NoRoomError as error:
                get_logger().warning("swap_waits", reason=str(error))
                give_memory_back()
                return True
            if seat is not None:
                self._put_in(seat, deployment)
            return False

    def _brought(self, deployment: Deployment | None, *, served: Served | None) -> Seat | None:
        """Return the model, unless it was halted or rolled back while it was loaded, which may have taken minutes."""
        seat = self._bringer.bring(deployment, served=served)
        try:
            is_wanted = (deployment.id if deployment else None) in self._wanted().ids
        except GuardfleetError:
            seat.judge.engine.stop()
            raise
        if is_wanted:
            return seat
        seat.judge.engine.stop()
        return None

    def _swap_alone(self, deployment: Deployment | None) -> None:
        """Take no work, end what is in hand, free the device, and only then load. If that fails, load what served before."""
        main, before, served = self._seats.main, self._served, self._engine_served()
        if main is None:
            return
        self._changed(None)
        self._seats.put_beside(None)
        self._seats.put_in(None)
        if not self._seats.stop_retired(timeout_s=self._stall_s):
            self._put_in(main, before)
            raise RetryableError("a shard has not ended: the model is not replaced yet")
        del main
        give_memory_back()
        try:
            seat = self._bringer.bring(deployment, served=served, is_beside=False)
        except BaseException:
            try:
                self._put_in(self._bringer.bring(before), before)
            except GuardfleetError as error:
                self._bringer.end(f"the model that was served cannot be loaded again: {error}")
            raise
        self._put_in(seat, deployment)

    def _begin(self, deployment: Deployment | None, *, is_beside: bool) -> None:
        label = _label(deployment)
        self._reason = f"loads {deployment.label if deployment else 'the model of its settings'}" + (
            " beside the model that is served" if is_beside else "; no work is taken"
        )
        get_logger().info("swap_began", deployment=label, beside=is_beside)

    def _engine_served(self) -> Served | None:
        main = self._seats.main
        return None if main is None else Served.of(main.judge.engine)

    def _put_in(self, seat: Seat, deployment: Deployment | None) -> None:
        self._seats.put_in(seat)
        self._served, self._no_room_for, self._reason = deployment, (), None
        self._announce()
        model = seat.model
        get_logger().info("swap_done", deployment=_label(deployment), model=model.name, revision=model.revision[:12])
        self._end_retired()

    def _announce(self) -> None:
        main = self._seats.main
        metrics.MODEL.replace({(m.name, m.revision, str(m.is_demo).lower()): 1.0 for m in self._seats.in_use()})
        if main is not None:
            self._changed(main.model)

    def _end_retired(self) -> None:
        self._seats.stop_retired(timeout_s=self._stall_s)
        give_memory_back()

    @contextmanager
    def _turn(self, *, alone: bool) -> Iterator[bool]:
        """Lend a turn; False if it is another worker's, or if nobody would serve meanwhile."""
        stored.report(self._db, self._row())
        is_granted = stored.take_turn(self._db, self._row(), alone=alone)
        try:
            if not is_granted:
                others = [seat for seat in stored.there(self._db, self._detector) if seat.worker != self._worker]
                self._reason = NO_OTHER if alone and not others else WAITS
            yield is_granted
        finally:
            if is_granted:
                stored.end_turn(self._db, self._worker)

    def _pause(self, reason: str) -> None:
        self._reason, self._not_before = reason, time.monotonic() + AGAIN_S


def _label(deployment: Deployment | None) -> str:
    return deployment.label if deployment else "settings"
