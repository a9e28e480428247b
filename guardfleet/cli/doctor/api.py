"""What the API alone uses: where uploaded files are, the counts that its processes share, and the ports of this machine."""

import importlib.util
import json
import pathlib
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from functools import partial
from typing import Any

from guardfleet.cli.doctor import machine
from guardfleet.cli.doctor.findings import Caution, Check, Pitfall, TroubleError
from guardfleet.errors import ConfigurationError, RetryableError
from guardfleet.process import ports
from guardfleet.settings import Settings
from guardfleet.telemetry.health import Status

ASKED_S = 1.0  # of whoever listens on a taken port, on this machine
MOST_BYTES = 10_000  # of its answer
LOOPBACK = ("127.0.0.1", "::1", "localhost")
EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared, not listened at


def checks(settings: Settings) -> Iterator[Check]:
    """Yield the checks of what the API uses, each a chain of its own."""
    if settings.api.files_url:
        files = "mount the disk and give the folder to this user, or set GUARDFLEET_API__FILES_URL to another."
        yield Check("uploads", partial(_uploads, settings.api.files_url), files)
    if settings.api.rate_limit_url:
        counts = "check GUARDFLEET_API__RATE_LIMIT_URL, that the server runs, and that no firewall keeps this machine off."
        yield Check("rate limits", partial(_counts, settings.api.rate_limit_url.get_secret_value()), counts, Pitfall.PORT)
    yield Check("ports", partial(_ports, settings), "`ss -ltnp` shows which process listens there.", Pitfall.PORT)


def _uploads(url: str) -> str | Caution:
    folder = _folder_of(url)
    if folder is None:
        return _object_store(url)
    machine.require_writable(folder, "GUARDFLEET_API__FILES_URL")
    there = machine.nearest(folder)
    free = shutil.disk_usage(there).free
    machine.require_room(there, free)
    return f"{free >> 30} GiB free at {there}"


def _folder_of(url: str) -> pathlib.Path | None:
    """Return the folder that the URL of uploads means; None if they go elsewhere."""
    scheme, colon, rest = url.partition("://")
    if colon:
        return pathlib.Path(rest) if scheme in ("file", "local") else None
    return pathlib.Path(url.removeprefix("file:")).expanduser().absolute()


def _object_store(url: str) -> str | Caution:
    """Ask the store what is there. Nothing is written: that a file can be is tried by the first upload."""
    scheme = f"{urllib.parse.urlsplit(url).scheme}://"
    if importlib.util.find_spec("fsspec") is None:
        raise TroubleError("fsspec is not installed.", "pip install 'guardfleet[api]'.")
    import fsspec  # type: ignore[import-untyped]

    try:
        store, root = fsspec.url_to_fs(url)
    except (ImportError, ValueError) as error:  # names the missing package, or the known protocols
        fix = (
            "pip install the package that it names." if isinstance(error, ImportError) else "give a folder, or s3://bucket/prefix."
        )
        raise TroubleError(f"{scheme} cannot be used: {_first_line(error)}.", fix) from error
    except Exception as error:  # a store that is asked at once, and is away
        raise RetryableError(f"{scheme} cannot be reached: {type(error).__name__}: {_first_line(error)}.") from error
    try:
        store.ls(root, detail=False)
    except FileNotFoundError:
        return Caution(f"{scheme} answers, and nothing is there: the first upload fails if the bucket does not exist")
    except PermissionError:
        return Caution(f"{scheme} answers, and does not let this user list what is there")
    except Exception as error:
        raise RetryableError(f"{scheme} cannot be used: {type(error).__name__}: {_first_line(error)}.") from error
    return f"{scheme} answers"


def _counts(url: str) -> str:
    if importlib.util.find_spec("limits") is None:
        raise TroubleError("limits is not installed.", "pip install 'guardfleet[api]'.")
    from limits.storage import storage_from_string

    try:
        is_there = storage_from_string(url, wrap_exceptions=True).check()
    except Exception as error:  # of whatever driver the URL names
        raise ConfigurationError(f"the URL cannot be used: {type(error).__name__}.") from error
    if not is_there:
        raise RetryableError("the server of the shared counts does not answer, or refuses the user.")
    return "the server of the shared counts answers"


def _ports(settings: Settings) -> str:
    wanted = [("api_port", settings.api.host, settings.api.port), ("metrics_port", settings.metrics_host, settings.metrics_port)]
    asked = [(name, host, port) for name, host, port in wanted if port]
    if len({(host, port) for _, host, port in asked}) < len(asked):
        raise ConfigurationError(f"the API's port and the probes' port are both {asked[0][2]}: set one of them to another.")
    taken = {port: error for name, host, port in asked if (error := _taken(host, port, name))}
    own = {port: said for _, host, port in asked if port in taken and (said := _guardfleet(host, port))}
    if strange := [error for port, error in taken.items() if port not in own]:
        raise ConfigurationError(" ".join(strange))
    said = ", ".join(f"{port} at {host} is {own.get(port, 'free')}" for _, host, port in asked) or "any free port"
    alone = [str(port) for _, host, port in asked if host in LOOPBACK]
    return f"{said}; only this machine reaches {' and '.join(alone)}" if alone else said


def _taken(host: str, port: int, name: str) -> str | None:
    try:
        ports.require_free(host, port, name)
    except ConfigurationError as error:
        return str(error)
    return None


def _guardfleet(host: str, port: int) -> str | None:
    """Return that a process of guardfleet listens there, if it says so: a fleet that runs is no obstacle to itself."""
    here = "127.0.0.1" if host in EVERYWHERE else host
    where = f"[{here}]" if ":" in here else here
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _AnyStatus())
    try:
        with opener.open(f"http://{where}:{port}/healthz", timeout=ASKED_S) as answer:
            said: Any = json.loads(answer.read(MOST_BYTES))
    except (OSError, ValueError):
        return None
    words = [status.name.lower() for status in Status]
    if not isinstance(said, dict) or said.keys() != {"status", "reasons"} or said["status"] not in words:
        return None
    return f"a guardfleet process's, which is {said['status']}"


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """Lets an answer with any status through: one that is unhealthy says 503."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0].rstrip(".")
