"""A small HTTP server for each process: /metrics, /livez, /readyz, /healthz. On loopback unless told otherwise."""

import json
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from guardfleet.errors import ConfigurationError
from guardfleet.settings import Settings
from guardfleet.telemetry import memory, tracing
from guardfleet.telemetry.health import Health, Part, Report, Status
from guardfleet.telemetry.metrics import registry_of

Answer = tuple[bool, str, str]  # whether all is well, the content type, and the body
HERE = "/metrics, /livez, /readyz and /healthz are here\n"


class ProbeServer:
    """Serves from a daemon thread; `port` is the actual one."""

    def __init__(self, host: str, port: int, *, health: Health, registry: CollectorRegistry) -> None:
        self._health = health
        self._metrics: Any = make_wsgi_app(registry)
        try:
            self._server = make_server(host, port, self._answer, server_class=_Server, handler_class=_Quiet)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on port {port} at {host} ({error.strerror}): set GUARDFLEET_METRICS_PORT to another."
            ) from error
        self.port: int = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="probes", daemon=True
        )

    def start(self) -> None:
        """Start serving."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; safe to call twice."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return self._metrics(environ, start_response)  # type: ignore[no-any-return]
        probe = PROBES.get(path)
        if probe is None:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [HERE.encode()]
        is_well, kind, body = probe(self._health)
        start_response("200 OK" if is_well else "503 Service Unavailable", [("Content-Type", kind)])
        return [body.encode()]


def livez(health: Health) -> Answer:
    """Answer whether the process turns: one that does not should be started again."""
    return _plain(health.live())


def readyz(health: Health) -> Answer:
    """Answer whether the process has started and can work now."""
    return ready(health.report())


def healthz(health: Health) -> Answer:
    """Answer with the status in a word, and the reasons; not well only if unhealthy."""
    return in_words(health.report())


def ready(report: Report) -> Answer:
    """Answer whether the process can work."""
    return _plain(report.not_ready)


def in_words(report: Report) -> Answer:
    """Answer with a report."""
    said = {"status": report.status.name.lower(), "reasons": list(report.reasons)}
    return report.status is not Status.UNHEALTHY, "application/json", json.dumps(said) + "\n"


def _plain(wrong: str | None) -> Answer:
    return wrong is None, "text/plain", f"{wrong or 'ok'}\n"


PROBES: dict[str, Callable[[Health], Answer]] = {"/livez": livez, "/readyz": readyz, "/healthz": healthz}


class Reporting:
    """A process's health, looked at from the start on, and its probe server if a port is set. A context manager."""

    def __init__(self, settings: Settings, process: str) -> None:
        self._settings, self._process = settings, process
        self.health = Health()
        self.health.add(Part("memory", memory.wrong, is_vital=False))
        self._server = (
            None
            if settings.metrics_port is None
            else ProbeServer(settings.metrics_host, settings.metrics_port, health=self.health, registry=registry_of(process))
        )

    def __enter__(self) -> Health:
        """Start looking and serving."""
        tracing.configure(self._settings, self._process)
        self.health.start()
        if self._server:
            self._server.start()
        return self.health

    def __exit__(self, *_: object) -> None:
        """Stop both."""
        if self._server:
            self._server.stop()
        self.health.stop()
        tracing.stop()


class _Server(WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing: scrapes are not news."""
