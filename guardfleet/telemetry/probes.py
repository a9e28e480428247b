"""A small HTTP server for each process: /metrics, /livez, /readyz, /healthz. On loopback unless told otherwise."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from guardfleet.errors import ConfigurationError
from guardfleet.settings import Settings
from guardfleet.telemetry import memory, tracing
from guardfleet.telemetry.health import Health, Part, Report, Status
from guardfleet.telemetry.metrics import registry_of

Answer = tuple[bool, str, str]  # whether all is well, the content type, and the body
MOST = 32  # connections at a time
ANSWERED_IN_S = 5.0  # a connection is not kept for longer: a scrape takes a fraction of a second
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


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, at most MOST of them, none for longer than ANSWERED_IN_S: a silent client costs no other."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # with the default of 5, a burst of connections made a probe wait for a second

    def __init__(self, *args: Any) -> None:
        self._open: dict[socket.socket, float] = {}  # by connection: when it was accepted; oldest first
        self._lock = threading.Lock()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve in a thread of its own; the oldest connection makes room if there are too many."""
        with self._lock:
            self._open[request] = time.monotonic()
            too_many = list(self._open)[: max(0, len(self._open) - MOST)]
        self._cut(too_many)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close the connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut connections that are too old; called several times a second."""
        oldest = time.monotonic() - ANSWERED_IN_S
        with self._lock:
            late = [request for request, since in self._open.items() if since < oldest]
        self._cut(late)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that went away is not news."""

    def _cut(self, requests: Iterable[socket.socket]) -> None:
        for request in requests:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)  # its thread reads the end, and closes it


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing: scrapes are not news."""
