"""A small HTTP server for each process: /metrics, /livez, /readyz. On loopback unless told otherwise."""

import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from guardfleet.errors import ConfigurationError

Check = Callable[[], str | None]  # None if fine, else a sentence that says what is wrong


class ProbeServer:
    """Serves from a daemon thread; `port` is the actual one."""

    def __init__(self, host: str, port: int, *, live: Check, ready: Check) -> None:
        self._checks = {"/livez": live, "/readyz": ready}
        self._metrics: Any = make_wsgi_app()
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
        check = self._checks.get(path)
        if check is None:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics, /livez and /readyz are here\n"]
        wrong = check()
        start_response("503 Service Unavailable" if wrong else "200 OK", [("Content-Type", "text/plain")])
        return [f"{wrong or 'ok'}\n".encode()]


class _Server(WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing: scrapes are not news."""
