"""Deployments as people ask for them, through any face: checked, then stored; workers take them up."""

from guardfleet.domain.detection import DETECTOR_NAME
from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.domain.states import DeploymentState
from guardfleet.errors import RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.store import models
from guardfleet.store.deployments import deployments
from guardfleet.store.deployments.row import Asked, Deployment
from guardfleet.store.keys import Caller
from guardfleet.store.postgres.database import Database

UNDER_WAY = (DeploymentState.SHADOW, DeploymentState.CANARY, DeploymentState.ROLLING)
CHANGES = "policies:write"  # the scope that changes what decides, of which the model is a part
MOST_NAME = 500  # characters of a model, and of a revision


def begin(db: Database, keyring: Keyring, asked: Asked) -> Deployment:
    """Store what is asked for. Raises RejectedError for what cannot be meant, NotFoundError for an unknown detector."""
    detector_of(asked.detector)
    for name in (asked.model, asked.revision or "-"):
        if not name or len(name) > MOST_NAME or not name.isprintable() or name.strip() != name:
            raise RejectedError("a model, and a revision, is a name or a folder: 1 to 500 printable characters.", param="model")
    if asked.state is not DeploymentState.ROLLING and not 0 < asked.share <= 1:
        raise RejectedError("share must be more than 0 % and at most 100 %.", param="share")
    if asked.alone and asked.state is DeploymentState.CANARY:
        raise RejectedError("a canary compares two models in one worker, and this one is to be alone: choose one of them.")
    models.require_detectors(db, [asked.detector])
    return deployments.begin(db, keyring, asked)


def detector_of(name: str) -> str:
    """Return the name if it can be a detector's. Raises RejectedError."""
    if not DETECTOR_NAME.fullmatch(name):
        raise RejectedError(
            f"{name!r} is no detector: its name is of small letters, digits, - and _, as GUARDFLEET_ENGINE__DETECTOR.",
            param="detector",
        )
    return name


def share_of(said: str, name: str) -> float:
    """Return a share that somebody wrote, `5%` or `0.05`. Raises RejectedError."""
    try:
        share = float(said.removesuffix("%")) / (100 if said.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share <= 1:
        raise RejectedError(f"{name} {said!r} is no share: give 5%, or 0.05.", param=name)
    return share


def may_see(caller: Caller) -> bool:
    """Return whether somebody may see what concerns all tenants: hosts, deployments, comparisons; the tenant `default` may."""
    return caller.tenant_id == DEFAULT_TENANT


def may_change(caller: Caller) -> bool:
    """Return whether somebody may change the models that all tenants' texts are judged by."""
    return may_see(caller) and caller.may(CHANGES)
