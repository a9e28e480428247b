"""Brings a model into the process: loaded and self-tested as at a start, held against its deployment, checked on labelled rows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from guardfleet.domain.verdict import Model
from guardfleet.errors import ConfigurationError, GuardfleetError, NoRoomError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import models
from guardfleet.store.deployments import deployments
from guardfleet.store.deployments.row import Deployment
from guardfleet.store.postgres.database import Database
from guardfleet.telemetry.logs import get_logger
from worker.engine.interfaces import Engine
from worker.moderation.judge import Judge
from worker.moderation.seats import Seat
from worker.moderation.throughput import Throughput
from worker.process import golden

Died = Callable[[str], None]
MakeEngine = Callable[[Settings, Throughput, Died], Engine]


@dataclass(frozen=True, slots=True)
class Served:
    """What a new engine has to be like; without the old one, which a reference would keep in memory."""

    model: Model
    is_padded: bool

    @classmethod
    def of(cls, engine: Engine) -> "Served":
        """Describe an engine."""
        return cls(engine.model, engine.is_padded)


@dataclass(frozen=True)
class Bringer:
    """What it takes to bring a model in. `settings` are the process's own: a deployment replaces the model and nothing else."""

    db: Database
    keyring: Keyring
    settings: Settings
    make_engine: MakeEngine
    throughput: Throughput
    end: Died  # ends the process

    def settings_of(self, deployment: Deployment | None) -> Settings:
        """Return the settings with the deployment's model; the process's own for None."""
        if deployment is None:
            return self.settings
        changed = {"model": deployment.model, "revision": deployment.found or deployment.revision}
        return self.settings.model_copy(update={"engine": self.settings.engine.model_copy(update=changed)})

    def bring(self, deployment: Deployment | None, *, served: Served | None = None, is_beside: bool = True) -> Seat:
        """Return the model, started and ready to judge. Raises ConfigurationError with the reason; then nothing of it is left.

        `served`: what judges meanwhile or did until now, whose labels it must have. NoRoomError if there is no room
        beside that.
        """
        engine = self.make(deployment)
        try:
            engine.start()
            if served is not None:
                require_like(engine, served, is_beside=is_beside)
            self.check(engine, deployment)
        except BaseException:
            engine.stop()
            raise
        return self.seated(engine, deployment)

    def make(self, deployment: Deployment | None) -> Engine:
        """Return the deployment's engine, not started. If it dies, the process ends, and the deployment is halted first."""
        return self.make_engine(self.settings_of(deployment), self.throughput, partial(self._died, deployment))

    def seated(self, engine: Engine, deployment: Deployment | None) -> Seat:
        """Return a seat for an engine that was checked."""
        model_id = models.register(self.db, engine.model)
        judge = Judge(self.db, engine, self.settings.cache, model_id, self.throughput, self.settings.engine.window_rule)
        return Seat(judge, deployment.id if deployment else None)

    def check(self, engine: Engine, deployment: Deployment | None) -> None:
        """Hold an engine that was started against its deployment. Raises ConfigurationError."""
        if deployment is None:
            return
        deployments.pin(self.db, deployment, name=engine.model.name, revision=engine.model.revision)
        rows = deployments.golden(self.db, self.keyring, deployment.id)
        if rows:
            n_right = golden.right(engine, rows, window_rule=self.settings.engine.window_rule)
            deployments.record_golden(self.db, deployment.id, n_right)
            get_logger().info("golden_checked", deployment=deployment.label, texts=len(rows), right=n_right)
            golden.require(n_right, len(rows), least=deployment.golden_accuracy)

    def _died(self, deployment: Deployment | None, reason: str) -> None:
        """End the process, after halting what its next start would bring in again, if it was still being tried."""
        try:
            if deployment is not None:
                deployments.halt(self.db, deployment, f"its engine died: {reason}")
        except GuardfleetError as error:
            get_logger().warning("swap_failed", deployment=deployment.label if deployment else None, reason=str(error))
        self.end(reason)


def require_like(engine: Engine, served: Served, *, is_beside: bool) -> None:
    """Raise ConfigurationError unless the engine answers in the same labels, and as fast a way if it is beside the other.

    Their order may be another: scores are read by the order of the model that gave them.
    """
    mine, theirs = engine.model, served.model
    if (mine.detector, sorted(mine.labels)) != (theirs.detector, sorted(theirs.labels)):
        raise ConfigurationError(
            f"it answers as {mine.detector} with other labels than the model that is served: what is stored could not be compared."
        )
    if mine.neutral != theirs.neutral:
        raise ConfigurationError(
            f"its neutral label is {mine.neutral or 'none'}, where that of the model that is served is {theirs.neutral or 'none'}: "
            "the same label would mean something else. GUARDFLEET_ENGINE__NEUTRAL_LABEL says which it is."
        )
    if is_beside and engine.is_padded and not served.is_padded:
        raise NoRoomError("the packed pass did not run beside the model that is served.")
