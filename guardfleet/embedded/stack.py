"""The whole stack in one place: servers for what is not configured, and guardfleet's processes on top.

Start: lock, PostgreSQL, broker, migration, processes. Stop: processes first (they return their work), then the servers.
"""

import errno
import fcntl
import hashlib
import json
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import SecretStr

from guardfleet.embedded.ownership import Owner, make_folder
from guardfleet.embedded.postgres import EmbeddedPostgres
from guardfleet.embedded.valkey import EmbeddedValkey
from guardfleet.errors import ConfigurationError, RetryableError
from guardfleet.process.supervisor import Child, free_shards
from guardfleet.security.encryption import Keyring, new_secret_key
from guardfleet.settings import ENV_PREFIX, Settings
from guardfleet.store import installation, migrate
from guardfleet.store.postgres.database import Database
from guardfleet.telemetry.logs import get_logger

SOCKET_PATH_LIMIT = 80  # sockaddr_un holds 107 bytes, and the servers append their own names
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+-]+")  # servers and libraries use it in URLs and lists
GPU = pathlib.Path("/proc/driver/nvidia")
CPU_SHARD_TEXTS = 64  # a shard should take seconds: 0.3 s with the demo model on 2 cores, a minute and a half with 0.6B
RESTART_S = 30.0  # a server that died is restarted within this time
LOOPBACK = ("127.0.0.0/8", "::1/128")


class Stack:
    """Servers and processes of one data folder. `settings` are complete once the servers run."""

    def __init__(self, settings: Settings, *, log_to_files: bool) -> None:
        self.settings = settings
        self.children: list[Child] = []
        self._log_to_files = log_to_files
        self._folder = settings.data_dir
        self._lock: int | None = None
        self._servers: list[EmbeddedPostgres | EmbeddedValkey] = []

    @property
    def owns_data(self) -> bool:
        """Whether this stack holds the data folder's lock: nobody else can write to its database."""
        return self._lock is not None

    def start_servers(self, *, broker: bool = True) -> Settings:
        """Start what is not configured, migrate, and return the settings. Raises ConfigurationError if another stack runs here."""
        if self.settings.is_embedded:
            make_folder(self._folder)
            self._take_lock()
            owner, sockets = Owner.here(), _socket_folder(self._folder)
            owner.own(sockets)
            postgres = EmbeddedPostgres(self._folder / "postgres", sockets, owner)
            self._servers.append(postgres)
            postgres.start()
            found: dict[str, object] = {
                "database_url": SecretStr(postgres.url),
                "secret_key": self.settings.secret_key or SecretStr(_secret_key(self._folder)),
                "webhook_allow_networks": self.settings.webhooks.allow_networks or LOOPBACK,
            }
            if (
                self.settings.tuning.engine == "model"
                and "shard_texts" not in self.settings.intake.model_fields_set
                and not GPU.exists()
            ):
                found["shard_texts"] = CPU_SHARD_TEXTS
            if broker and self.settings.broker_url is None:
                valkey = EmbeddedValkey(self._folder / "valkey", sockets, owner)
                self._servers.append(valkey)
                valkey.start()
                found["broker_url"] = SecretStr(valkey.url)
            self.settings = self.settings.but(**found)
        db = Database(self.settings.required("database_url"), pool_size=1)
        try:
            migrate.upgrade(db)
            installation.require_key(db, Keyring.of(self.settings))
        finally:
            db.close()
        return self.settings

    def start_processes(self, *commands: tuple[str, Sequence[str]]) -> None:
        """Start guardfleet processes, given as (name, arguments)."""
        environment = self.settings.as_environment()
        logs = self._folder / "logs"
        if self._log_to_files:
            logs.mkdir(parents=True, exist_ok=True)
        for rank, (name, args) in enumerate(commands):
            log = logs / f"{name}.log" if self._log_to_files else None
            if self.settings.metrics_port:  # one for each
                environment[f"{ENV_PREFIX}METRICS_PORT"] = str(self.settings.metrics_port + rank)
            child = Child(name, args, environment, log, after_death=free_shards(self.settings))
            self.children.append(child)
            child.start()

    def announce(self) -> None:
        """Record where the embedded stack runs, so that this user's other commands find it."""
        if not self.owns_data:
            return
        runtime = self._folder / "runtime.json"
        part = runtime.with_suffix(".part")
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"pid": os.getpid(), "environment": self.settings.as_environment()}, file)
        part.replace(runtime)

    def stop(self) -> None:
        """Stop everything in order; safe to call twice."""
        for child in self.children:
            child.ask_to_stop()
        for child in self.children:
            child.stop()
        for server in reversed(self._servers):
            server.stop()
        self._servers.clear()
        if self._lock is not None:
            (self._folder / "runtime.json").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def tend(self) -> None:
        """Restart a server that has died; what it had committed is still there."""
        for server in self._servers:
            if not server.is_running():
                get_logger().warning("child_exited", child=type(server).__name__)
                server.start()

    def waits_for(self) -> list[str]:
        """Return the names of processes that are not ready yet."""
        return [child.name for child in self.children if not child.is_ready]

    def broken(self) -> str | None:
        """Return why the stack cannot work, or None: a child was given up."""
        return next((child.gave_up for child in self.children if child.gave_up), None)

    def _take_lock(self) -> None:
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            self._lock = None
            if error.errno == errno.EWOULDBLOCK:
                raise ConfigurationError(
                    f"another guardfleet is running in {self._folder}: wait for it, or set GUARDFLEET_DATA_DIR."
                ) from None
            raise


def running_settings(settings: Settings) -> Settings | None:
    """Return the settings of the stack that `guardfleet up` runs in the same data folder; None if there is none.

    Waits for a database that is being restarted. Raises RetryableError if it stays down.
    """
    runtime = settings.data_dir / "runtime.json"
    try:
        known = json.loads(runtime.read_text())
        os.kill(known["pid"], 0)
    except (OSError, ValueError, KeyError):
        return None
    if not _is_locked(settings.data_dir):
        return None  # a crash left the file behind, and another process has the pid now
    environment = known["environment"]
    found: dict[str, Any] = {}
    for key in ("database_url", "broker_url", "secret_key"):
        found[key] = SecretStr(environment[f"GUARDFLEET_{key.upper()}"])
    if allowed := environment.get("GUARDFLEET_WEBHOOKS__ALLOW_NETWORKS"):
        found["webhook_allow_networks"] = tuple(allowed.split(","))
    if "GUARDFLEET_INTAKE__SHARD_TEXTS" in environment:
        found["shard_texts"] = int(environment["GUARDFLEET_INTAKE__SHARD_TEXTS"])
    db = Database(found["database_url"].get_secret_value(), pool_size=1)
    try:
        _wait_for(db)
    finally:
        db.close()
    return settings.but(**found)


def _is_locked(folder: pathlib.Path) -> bool:
    """Return whether a stack holds the folder."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _wait_for(db: Database) -> None:
    deadline = time.monotonic() + RESTART_S
    while True:
        try:
            return db.ping()
        except RetryableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextmanager
def database_of(settings: Settings) -> Iterator[Settings]:
    """Yield settings with a database: the configured one, a running stack's, or one embedded for as long as the block lasts."""
    if settings.secret_key is not None:
        Keyring.of(settings)  # report an invalid key even if nothing is decrypted with it
    if not settings.is_embedded:
        yield settings
        return
    running = running_settings(settings)
    if running:
        yield running
        return
    if not (settings.data_dir / "postgres" / "PG_VERSION").exists():
        raise ConfigurationError(
            "there is no database yet: `guardfleet scan` or `guardfleet up` makes one, or set GUARDFLEET_DATABASE_URL."
        )
    stack = Stack(settings, log_to_files=True)
    try:
        yield stack.start_servers(broker=False)
    finally:
        stack.stop()


def _secret_key(folder: pathlib.Path) -> str:
    path = folder / "secret_key"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text().strip()
    with os.fdopen(descriptor, "w") as file:
        key = new_secret_key()
        file.write(key)
    return key


def _socket_folder(folder: pathlib.Path) -> pathlib.Path:
    """Return a folder in the data folder, or a temporary one if that path is too long for a socket or unsafe in a URL."""
    mark = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    for candidate in (folder.resolve() / "run", pathlib.Path(tempfile.gettempdir()).resolve() / f"guardfleet-{mark}"):
        if len(str(candidate)) <= SOCKET_PATH_LIMIT and PLAIN_PATH.fullmatch(str(candidate)):
            return candidate
    raise ConfigurationError(
        f"cannot make a socket below {folder} or {tempfile.gettempdir()}, whose paths are too long or have characters that no URL "
        "have: set GUARDFLEET_DATA_DIR or TMPDIR to a shorter one."
    )
