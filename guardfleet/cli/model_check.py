"""Check that a command's models exist, before it starts anything."""

from guardfleet.settings import Settings


def require_found(settings: Settings, second_model: str | None = None) -> None:
    """Raise ConfigurationError for a model that is neither a folder, nor on the hub, nor in the hub's cache."""
    if settings.tuning.engine != "model":
        return
    from worker.engine.model.model_files import folder_of

    for model in (settings.engine.model, second_model):
        if model is not None and folder_of(model) is None:
            from worker.engine.model import hub

            hub.is_only_cached(model, settings.engine.revision)
