"""Deployments of a fleet that runs: begun, waited for, and what its workers serve."""

from guardfleet.client.direct import DirectClient
from guardfleet.domain.states import DeploymentState
from guardfleet.domain.verdict import GUARD
from guardfleet.store.deployments import deployments, seats
from guardfleet.store.deployments.row import Asked, Deployment
from tests.services.fleet import until


def deployed(producer: DirectClient, revision: str | None, **asked: object) -> Deployment:
    """A deployment of the instant engine's revision."""
    values: dict[str, object] = {"detector": GUARD, "model": "demo", "revision": revision, "state": DeploymentState.ROLLING}
    return deployments.begin(producer.db, producer.keyring, Asked(**{**values, **asked}))  # type: ignore[arg-type]


def reached(producer: DirectClient, one: Deployment, state: DeploymentState) -> Deployment:
    """The deployment once it is in this state."""

    def look() -> Deployment | None:
        now = deployments.get(producer.db, one.label, detector=one.detector)
        return now if now.told is state else None

    found = until(look, what=f"{one.label} {state.label}")
    assert found is not None
    return found


def compared(producer: DirectClient, one: Deployment, n: int) -> Deployment:
    """The deployment once so many texts were judged by both models."""

    def look() -> Deployment | None:
        now = deployments.get(producer.db, one.label, detector=one.detector)
        return now if now.compared >= n else None

    found = until(look, what=f"{n} compared texts")
    assert found is not None
    return found


def ready(producer: DirectClient, n: int, detector: str = GUARD) -> None:
    """Wait until so many workers have written their seats."""
    until(lambda: len(seats.there(producer.db, detector)) == n, what=f"{n} seats of {detector}")


def beside(producer: DirectClient, one: Deployment | None, detector: str = GUARD) -> None:
    """Wait until the detector's only worker has this model beside the one that serves; None: no model."""
    wanted = one.id if one else None
    until(
        lambda: seats.there(producer.db, detector)[0].beside_id == wanted, what="one model beside the other" if one else "one model"
    )
