"""Check that a command's models exist, before it starts anything."""

from guardfleet.cli import detector_workers
from guardfleet.domain.options import JobOptions
from guardfleet.settings import Settings


def require_found(settings: Settings, options: JobOptions | None = None) -> None:
    """Raise ConfigurationError for a model that is neither a folder, nor on the hub, nor in the hub's cache.

    `options`: of the job that the models are for; by default, those of all detectors that the settings name.
    """
    if settings.tuning.engine != "model":
        return
    from worker.engine.model.model_files import folder_of

    plan = None if options is None else options.plan
    asked = [settings.engine.model] if plan is None or plan.asks_guard else []
    asked += [plan.second_model] if plan and plan.second_model else []
    names = detector_workers.served(settings) if plan is None else detector_workers.asked(plan)
    for model in [*asked, *(detector_workers.model_of(settings, name) for name in names)]:
        if folder_of(model) is None:
            from worker.engine.model import hub

            hub.is_only_cached(model, settings.engine.revision if model == settings.engine.model else None)
