"""Loading the model, which takes from seconds to many minutes: what the process says of itself meanwhile."""

import time
from collections.abc import Callable

from guardfleet.settings import Settings
from guardfleet.telemetry import metrics
from guardfleet.telemetry.health import Health
from guardfleet.telemetry.logs import get_logger, told
from worker.engine.interfaces import Engine


def loaded(settings: Settings, make_engine: Callable[[], Engine], health: Health) -> Engine:
    """Return the engine with its model loaded, saying for how long it has been loading."""
    health.phase("loading the model")
    get_logger().info("model_loading", model=settings.engine.model)
    began = time.monotonic()
    metrics.MODEL_LOADING.set(lambda: time.monotonic() - began)
    try:
        engine = make_engine()
        engine.start()
    except Exception as error:
        get_logger().error("model_failed", model=settings.engine.model, **told(error))
        raise
    finally:
        metrics.MODEL_LOADING.forget()
    seconds = time.monotonic() - began
    metrics.MODEL_LOADED.set(seconds)
    model = engine.model
    metrics.MODEL.replace({(model.name, model.revision, str(model.is_demo).lower()): 1.0})
    get_logger().info(
        "model_loaded", model=model.name, revision=model.revision[:12], is_demo=model.is_demo, seconds=round(seconds, 1)
    )
    health.phase("connecting to the broker")
    return engine
