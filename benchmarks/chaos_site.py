"""What chaos breaks: servers behind proxies, and the processes of a fleet, each restarted when it ends."""

import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field

from guardfleet.security.encryption import new_secret_key
from guardfleet.settings import Settings, load_settings
from guardfleet.settings.names import for_child
from guardfleet.store import migrate
from guardfleet.store.postgres.database import Database
from tests.services.proxy import Proxy
from tests.services.servers import OwnPostgres, OwnRabbit, OwnRedis, free_port, own_broker

LEASE_S = 5.0
FATAL = (signal.SIGKILL, signal.SIGTERM)


@dataclass
class Process:
    """A process of the fleet, restarted whenever it ends. `own_ends`: how it ended without a signal from here."""

    name: str
    args: list[str]
    settings: Settings
    folder: pathlib.Path
    starts: int = 0
    own_ends: list[str] = field(default_factory=list)
    running: subprocess.Popen[bytes] | None = None
    is_doomed: bool = False  # it was sent a signal that ends it

    @property
    def log(self) -> pathlib.Path:
        """Its log file."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Its pid, while it runs and is not about to end."""
        if self.running is None or self.is_doomed or self.running.poll() is not None:
            return None
        return self.running.pid

    def start(self) -> None:
        """Start the process."""
        self.is_doomed = False
        with self.log.open("ab") as out:
            self.running = subprocess.Popen(
                [sys.executable, "-P", "-m", "guardfleet", *self.args],
                env=for_child(os.environ, self.settings.as_environment()),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.starts += 1

    def tend(self) -> None:
        """Restart the process if it has ended."""
        if self.running is None or self.running.poll() is not None:
            if self.running is not None and not self.is_doomed:
                self.own_ends.append(f"status {self.running.returncode}: {self.log.read_text(errors='replace')[-600:]}")
            self.start()

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the process exists."""
        if self.running is not None and self.running.poll() is None:
            self.is_doomed = self.is_doomed or number in FATAL
            self.running.send_signal(number)

    def stop(self) -> None:
        """Stop the process, with SIGTERM first."""
        for number in (signal.SIGCONT, signal.SIGTERM):
            self.send(number)
        if self.running is not None:
            try:
                self.running.wait(30)
            except subprocess.TimeoutExpired:
                self.running.kill()
                self.running.wait()


@dataclass
class Site:
    """Servers behind proxies, and the processes that use them."""

    postgres: OwnPostgres
    broker: OwnRabbit | OwnRedis
    postgres_proxy: Proxy
    broker_proxy: Proxy
    settings: Settings
    folder: pathlib.Path
    db: Database
    processes: list[Process]
    api_port: int

    def one(self, prefix: str, rng: random.Random) -> Process:
        """Return a random process whose name begins with `prefix`."""
        return rng.choice([process for process in self.processes if process.name.startswith(prefix)])


@contextlib.contextmanager
def site_of(kind: str, workers: int, ms_per_batch: float, shard_texts: int) -> Iterator[Site]:
    """Start everything except the processes."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        postgres, broker = OwnPostgres(folder), own_broker(kind, folder)
        stack.callback(postgres.stop)
        postgres.start()
        stack.callback(broker.stop)
        broker.start()
        real = urllib.parse.unquote(postgres.url.split("host=")[1])
        (sockets := folder / "proxied").mkdir()
        postgres_proxy = Proxy(f"{real}/.s.PGSQL.5432", f"{sockets}/.s.PGSQL.5432")
        stack.callback(postgres_proxy.stop)
        parts = urllib.parse.urlsplit(broker.url)
        broker_proxy = Proxy(("127.0.0.1", parts.port or 0))
        stack.callback(broker_proxy.stop)
        port = free_port()
        settings = load_settings(
            database_url=f"postgresql://postgres@/postgres?host={urllib.parse.quote(str(sockets))}",
            broker_url=broker.url.replace(f":{parts.port}", f":{broker_proxy.port}"),
            secret_key=new_secret_key(),
            namespace="chaos",
            data_dir=folder,
            engine="instant",
            instant_ms_per_batch=ms_per_batch,
            shard_texts=shard_texts,
            lease_s=LEASE_S,
            republish_s=3.0,
            max_claims=100,  # every claim here ends by a kill that is nobody's fault
            cache_hours=0.0,
            api_port=port,
            webhook_allow_networks=("127.0.0.0/8",),
            webhook_schedule_s=(0.0, *[0.5] * 30),
        )
        db = Database(postgres.url, pool_size=4)
        stack.callback(db.close)
        migrate.upgrade(db)
        names = [
            ("dispatcher0", ["dispatcher"]),
            ("dispatcher1", ["dispatcher"]),
            ("api", ["api"]),
            ("webhooks", ["worker", "--webhooks"]),
        ]
        names += [(f"worker{i}", ["worker"]) for i in range(workers)]
        processes = [Process(name, args, settings, folder) for name, args in names]
        site = Site(postgres, broker, postgres_proxy, broker_proxy, settings, folder, db, processes, port)
        try:
            yield site
        finally:
            for process in processes:
                process.stop()
