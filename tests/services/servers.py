"""Servers that a test owns, on free ports, and may kill, empty and restart. The machine's servers are never touched."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from kombu import Connection
from kombu.exceptions import OperationalError

from guardfleet.embedded.ownership import Owner
from guardfleet.embedded.postgres import EmbeddedPostgres
from guardfleet.embedded.valkey import answers
from guardfleet.security.encryption import new_secret_key
from guardfleet.settings import Settings, load_settings
from tests.conftest import missing
from tests.services.fleet import until

RABBITMQ_SERVER = pathlib.Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OwnRedis:
    """A redis-server with its append-only file in the test's folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder, self._port = folder / "redis", free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            missing("no redis-server on the PATH")
        self._folder.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [
                str(binary),
                "--port",
                str(self._port),
                "--bind",
                "127.0.0.1",
                "--dir",
                str(self._folder),
                "--appendonly",
                "yes",
                "--save",
                "",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(lambda: answers(self.url), what="redis")

    def kill(self, *, empty: bool) -> None:
        """SIGKILL it; with `empty`, delete its data too."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        if empty:
            shutil.rmtree(self._folder)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class OwnRabbit:
    """A RabbitMQ node with its own name, port and folder; `options` are the Erlang machine's."""

    def __init__(self, folder: pathlib.Path, options: str = "") -> None:
        self._options = options
        self._folder, self._port = folder / "rabbit", free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"

    def start(self) -> None:
        if not RABBITMQ_SERVER.exists():
            missing("no RabbitMQ server is installed")
        self._folder.mkdir(exist_ok=True)
        (self._folder / "plugins").write_text("[].")
        environment = {
            "RABBITMQ_NODENAME": f"gftest{self._port}@localhost",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": str(self._folder),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "none"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": self._options,
            "HOME": str(self._folder),
        }
        self._process = subprocess.Popen(
            [str(RABBITMQ_SERVER)],
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(self._answers, what="rabbitmq")

    def kill(self, *, empty: bool) -> None:
        """SIGKILL the node; with `empty`, delete its queues too."""
        self.stop()
        if empty:
            shutil.rmtree(self._folder)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _answers(self) -> bool:
        try:
            with Connection(self.url) as connection:
                connection.ensure_connection(max_retries=1, timeout=2)
        except (OperationalError, OSError):
            return False
        return True


@pytest.fixture
def own_redis(tmp_path: pathlib.Path) -> Iterator[OwnRedis]:
    """A Redis that a test may disconnect, empty or stop."""
    server = OwnRedis(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_rabbitmq(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[OwnRabbit]:
    """A RabbitMQ node of the test's own; the parameter is the Erlang machine's options."""
    server = OwnRabbit(tmp_path, getattr(request, "param", ""))
    server.start()
    yield server
    server.stop()


class OwnPostgres:
    """A PostgreSQL that a test may crash: the embedded one, over a folder of the test's."""

    def __init__(self, folder: pathlib.Path) -> None:
        owner = Owner.here()
        for parent in (folder, *folder.parents):
            if parent != pathlib.Path("/") and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)  # pytest's folders are private; the server's user must be able to enter
        self._data = folder / "postgres"
        sockets = owner.own(folder / "run")
        self._server = EmbeddedPostgres(self._data, sockets, owner)
        self.url, self.socket = self._server.url, str(sockets / ".s.PGSQL.5432")

    def start(self) -> None:
        self._server.start()

    def is_running(self) -> bool:
        return self._server.is_running()

    def crash(self) -> None:
        """SIGKILL the postmaster, as a machine that loses power would."""
        pid = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        until(lambda: not _alive(pid), what="the death of the postmaster")

    def stop(self) -> None:
        self._server.stop()


def _alive(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def own_broker(kind: str, folder: pathlib.Path) -> OwnRedis | OwnRabbit:
    """A broker of the kind."""
    makers: dict[str, Callable[[pathlib.Path], OwnRedis | OwnRabbit]] = {"redis": OwnRedis, "rabbitmq": OwnRabbit}
    return makers[kind](folder)


@contextmanager
def own_servers(broker: str, **values: object) -> Iterator[tuple[Settings, OwnPostgres, pathlib.Path]]:
    """A PostgreSQL and a broker in a folder of their own, and the settings of a fleet over them with the instant engine."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)  # the servers' user must be able to enter
        postgres, own = OwnPostgres(folder), own_broker(broker, folder)
        known = {"database_url": postgres.url, "broker_url": own.url, "secret_key": new_secret_key(), "data_dir": folder}
        try:
            postgres.start()
            own.start()
            yield load_settings(**{**known, "engine": "instant", **values}), postgres, folder
        finally:
            own.stop()
            postgres.stop()
