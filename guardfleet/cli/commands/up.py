"""`guardfleet up`: the embedded stack in the foreground."""

import os
import threading

from guardfleet.cli import DONE, detector_workers, terminal
from guardfleet.cli.model_check import require_found
from guardfleet.embedded.stack import Stack
from guardfleet.errors import FatalError
from guardfleet.process import ports
from guardfleet.process.signals import on_termination
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import keys
from guardfleet.store.postgres.database import Database
from guardfleet.telemetry import logs

LOOK_S = 0.2


def up(settings: Settings) -> int:
    """Run until Ctrl-C or SIGTERM; a second Ctrl-C exits at once."""
    logs.configure(settings.but(log_format="console"), process="up")
    stopping = threading.Event()
    on_termination(lambda: os._exit(1) if stopping.is_set() else stopping.set())
    ports.require_free(settings.api.host, settings.api.port, "api_port")
    require_found(settings)
    stack = Stack(settings, log_to_files=True)
    try:
        with terminal.busy("starting PostgreSQL and the broker"):
            complete = stack.start_servers()
        key = _api_key(complete)
        stack.start_processes(
            ("dispatcher", ["dispatcher"]),
            ("worker", ["worker"]),
            *detector_workers.processes(settings, detector_workers.served(settings)),
            ("webhooks", ["worker", "--webhooks"]),
            ("api", ["api"]),
        )
        stack.announce()
        url = f"http://{complete.api.host}:{complete.api.port}"
        if not _wait(stack, stopping, complete):
            return DONE  # stopped before it was ready
        terminal.say("guardfleet is up: API at ", (url, "bold"), f", logs in {complete.data_dir / 'logs'}")
        terminal.say("API key: ", (str(key), "bold"))
        if complete.console.enabled:
            terminal.say(f"Console, with this key: {url}/console/")
        terminal.say("Try: guardfleet submit examples/texts.jsonl --wait     Stop: Ctrl-C")
        while not stopping.wait(1.0):
            _tend(stack)
        terminal.say("stopping: work in progress is returned to the queue")
        return DONE
    finally:
        stack.stop()


def _wait(stack: Stack, stopping: threading.Event, settings: Settings) -> bool:
    """Wait until every process is ready and the model loaded, so that a text gets its verdict. False if stopped before."""
    model = settings.engine.model if settings.tuning.engine == "model" else settings.tuning.engine
    loading = f"loading the model {model} and starting the other processes"
    if not terminal.notes.is_terminal:
        terminal.say(loading)
    with terminal.busy(loading):
        while not stopping.wait(LOOK_S):
            _tend(stack)
            if not stack.waits_for():
                return True
    return False


def _tend(stack: Stack) -> None:
    stack.tend()
    if wrong := stack.broken():
        raise FatalError(wrong.removeprefix("guardfleet: "))


def _api_key(settings: Settings) -> str:
    """Return the API key of this data folder: made at the first start, stored so that only this user can read it."""
    path = settings.data_dir / "api_key"
    if path.exists():
        return path.read_text().strip()
    db = Database(settings.required("database_url"), pool_size=1)
    try:
        key = keys.create(db, Keyring.of(settings), name="guardfleet up")
    finally:
        db.close()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(key)
    return key
