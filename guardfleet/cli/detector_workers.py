"""The workers that an embedded stack starts for detectors: which model each has."""

from collections.abc import Iterable

from guardfleet.domain.detection import detector_of
from guardfleet.domain.plan import Plan
from guardfleet.errors import ConfigurationError
from guardfleet.settings import Settings

BUILT_IN = {"ai-text": "demo"}  # detectors with a demo model


def served(settings: Settings) -> dict[str, str]:
    """Return the model of each detector that the settings name."""
    return dict(pair.split("=", 1) for pair in settings.detectors)


def model_of(settings: Settings, name: str) -> str:
    """Return the model of an entry's detector. Raises ConfigurationError if nothing says which."""
    name = detector_of(name)
    model = served(settings).get(name) or BUILT_IN.get(name)
    if model is None and settings.tuning.engine != "model":
        model = "demo"
    if model is None:
        raise ConfigurationError(f"no model is known for detector {name!r}: set GUARDFLEET_DETECTORS={name}=MODEL.")
    return model


def asked(plan: Plan) -> list[str]:
    """Return the entries of all detectors that a job may ask: those that it names, and their second ones."""
    return [*(entry for _, entry in plan.others), *plan.second_entries]


def processes(settings: Settings, names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return the name and the arguments of a worker for each of these detectors."""
    detectors = dict.fromkeys(map(detector_of, names))
    return [(f"worker-{name}", ["worker", "--detector", name, "--model", model_of(settings, name)]) for name in detectors]
