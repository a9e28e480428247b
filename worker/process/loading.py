"""Loading the first model, which takes from seconds to many minutes: which one, and what the process says of itself meanwhile."""

import time

from guardfleet.domain.states import DeploymentState
from guardfleet.errors import ConfigurationError
from guardfleet.store.deployments import deployments
from guardfleet.store.deployments.row import Deployment, Standing
from guardfleet.telemetry import metrics
from guardfleet.telemetry.health import Health
from guardfleet.telemetry.logs import get_logger, told
from worker.moderation.seats import Seat
from worker.process.bringing import Bringer
from worker.process.plan import follows, plan_of


def loaded(bringer: Bringer, health: Health) -> tuple[Seat, Deployment | None]:
    """Return the model that is deployed, or the settings' if none is, ready to judge; and its deployment.

    One that is being rolled out and fails is halted, and what was active before is loaded. Raises what loading that raises: a
    process does not serve another model than the active one.
    """
    settings = bringer.settings
    standing = deployments.standing(bringer.db, settings.engine.detector) if follows(settings) else Standing()
    wanted = plan_of(standing).main
    try:
        return _loaded(bringer, wanted, health), wanted
    except ConfigurationError as error:
        if wanted is None or wanted.told is not DeploymentState.ROLLING:
            raise
        deployments.halt(bringer.db, wanted, str(error))
    return _loaded(bringer, standing.active, health), standing.active


def _loaded(bringer: Bringer, deployment: Deployment | None, health: Health) -> Seat:
    """Return the model, saying for how long it has been loading."""
    health.phase("loading the model")
    name, label = bringer.settings_of(deployment).engine.model, deployment.label if deployment else None
    get_logger().info("model_loading", model=name, deployment=label)
    began = time.monotonic()
    metrics.MODEL_LOADING.set(lambda: time.monotonic() - began)
    try:
        seat = bringer.bring(deployment)
    except Exception as error:
        get_logger().error("model_failed", model=name, deployment=label, **told(error))
        raise
    finally:
        metrics.MODEL_LOADING.forget()
    seconds = time.monotonic() - began
    metrics.MODEL_LOADED.set(seconds)
    model = seat.model
    metrics.MODEL.replace({(model.name, model.revision, str(model.is_demo).lower()): 1.0})
    get_logger().info(
        "model_loaded", model=model.name, revision=model.revision[:12], is_demo=model.is_demo, seconds=round(seconds, 1)
    )
    health.phase("connecting to the broker")
    return seat
