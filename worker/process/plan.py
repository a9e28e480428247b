"""What a worker is to do about the deployments of its detector: which model to serve, and which to have beside it."""

from typing import NamedTuple

from guardfleet.domain.states import DeploymentState
from guardfleet.settings import Settings
from guardfleet.store.deployments.row import Deployment, Standing
from worker.moderation.seats import Beside, Seat


class Plan(NamedTuple):
    """What the process should serve, and have beside it; None for `main`: the model of its settings."""

    main: Deployment | None = None
    beside: Deployment | None = None

    @property
    def ids(self) -> tuple[int | None, int | None]:
        """Which deployments these are."""
        return self.main.id if self.main else None, self.beside.id if self.beside else None


def plan_of(standing: Standing) -> Plan:
    """Return what workers are to do: what is rolled out goes before what is active."""
    candidate = standing.candidate
    if candidate is not None and candidate.told is DeploymentState.ROLLING:
        return Plan(candidate)
    return Plan(standing.active, candidate)


def follows(settings: Settings) -> bool:
    """Return whether a worker with these settings serves what is deployed: one that is there for its model's name does not."""
    return settings.engine.follow_deployments and not settings.worker.named_only


def placed(seat: Seat, deployment: Deployment) -> Beside:
    """Return a seat as one that is beside: a canary's judges its share, a shadow's is only compared."""
    return Beside(seat, deployment.share, judges=deployment.told is DeploymentState.CANARY)


def is_placed(beside: Beside | None, deployment: Deployment | None) -> bool:
    """Return whether what is beside is what the deployment asks for."""
    if beside is None or deployment is None:
        return beside is None and deployment is None
    return beside.seat.deployment_id == deployment.id and beside == placed(beside.seat, deployment)
