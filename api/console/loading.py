"""The console, loaded when somebody first looks: an API process that nobody looks at neither imports nor keeps it."""

import threading

from starlette.types import ASGIApp, Receive, Scope, Send

from api.context import Context
from api.http.threads import in_thread


class Console:
    """The console of one API process, as an application to mount."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._app: ASGIApp | None = None
        self._lock = threading.Lock()  # two first requests make one application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the first one waits while the pages are loaded, beside the event loop."""
        app = await in_thread(self._load) if self._app is None else self._app
        await app(scope, receive, send)

    def _load(self) -> ASGIApp:
        from api.console.application import make_console  # noqa: PLC0415 - templates and pages cost time and memory

        with self._lock:
            if self._app is None:
                self._app = make_console(self._context)
            return self._app
