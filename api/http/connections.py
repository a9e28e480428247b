"""Limit connections: how many there are, how long one may be open without a request, and which are closed if there are too many.

uvicorn limits requests, not connections, and has no timeout for a head or a reader: a thousand callers that send nothing, or read
nothing, would take every descriptor without any key. So those that have kept the server waiting longest make room for the newest. A
request is safe from that only once its key is known.
"""

import asyncio
import resource
import socket
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

import h11
import uvicorn
from fastapi import FastAPI
from starlette.responses import Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.http.problems import Problem, problem
from guardfleet.process.readiness import say_ready
from guardfleet.settings import Settings

DRAIN_S = 120.0  # for a body that goes on after its answer, so that its sender gets to read the answer
UNREAD_S = 120.0  # for a caller that does not read its answer
BACKLOG = 128  # connections accepted before the first of them can be counted
LONGEST = 1024  # bytes of a head that say which path it is of
OTHERS = 256  # descriptors for PostgreSQL, the broker, files and logs
Malformed = Callable[[str, Problem], Response]  # what is answered in place of a problem, by the path


class Heads(h11.Connection):
    """Remembers how the newest head began: of one that cannot be parsed, nothing else is left."""

    _beginning = b""

    def next_event(self) -> Any:
        """Parse on."""
        if self.their_state is h11.IDLE:
            self._beginning = self.trailing_data[0][:LONGEST]
        return super().next_event()

    @property
    def path(self) -> str:
        """The path of the newest request, empty if nothing of it is one."""
        line = self._beginning.lstrip(b"\r\n").partition(b"\n")[0].split()
        target = line[1] if len(line) > 1 else b""
        return unquote(target.partition(b"?")[0].decode("latin-1"))


class Waiting(H11Protocol):
    """A connection that is closed if it has no request for `head_s`, or if there are too many and it has waited longest."""

    def __init__(self, *, most: int, head_s: float, malformed: Malformed, **given: Any) -> None:
        super().__init__(**given)
        self.conn: Heads = Heads(h11.SERVER)
        self._most, self._head_s, self._malformed = most, head_s, malformed
        self._timer: asyncio.TimerHandle | None = None
        self.waiting_since = self.loop.time()

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered on it."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def is_kept(self) -> bool:
        """Whether a request with a known key is being answered on it, and the caller reads the answer."""
        return self.is_busy and self._timer is None and "caller" in self.cycle.scope["state"]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for a head. If there are too many connections, drop the longest-waiting one, those with a request last."""
        super().connection_made(transport)
        self._wait(self._head_s)
        if len(self.connections) > self._most:
            others = [other for other in self.connections if isinstance(other, Waiting) and not other.is_kept]
            min(others, key=lambda other: (other is self, other.is_busy, other.waiting_since)).drop()

    def data_received(self, data: bytes) -> None:
        """Stop the timer once the head is complete; a head that comes byte by byte does not stop it."""
        super().data_received(data)
        if self.is_busy:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if not self.is_busy:  # the next request may have arrived already
            self._wait(DRAIN_S if self.conn.their_state is h11.SEND_BODY else self._head_s)

    def pause_writing(self) -> None:
        """Start the timer for a caller that does not read."""
        super().pause_writing()
        self._wait(UNREAD_S)

    def resume_writing(self) -> None:
        """Stop the timer: the caller reads again."""
        super().resume_writing()
        if self.is_busy:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        super().connection_lost(exc)
        self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request in the same form as every other error of its path."""
        told = problem(400, "invalid_http", "this is not a valid HTTP/1.1 request.", headers={"Connection": "close"})
        answer = self._malformed(self.conn.path, told)
        head = h11.Response(status_code=400, headers=answer.raw_headers, reason=b"Bad Request")
        for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def drop(self) -> None:
        """Close the connection at once, and stop counting it."""
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.abort()

    def _wait(self, longest_s: float) -> None:
        self._stop_waiting()
        self.waiting_since = self.loop.time()
        self._timer = self.loop.call_later(longest_s, self.drop)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Server(uvicorn.Server):
    """Reports that it is ready once it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, and report it."""
        await super().startup(sockets)
        say_ready()


def make_server(app: FastAPI, settings: Settings) -> uvicorn.Server:
    """Build the server around the application."""
    most = most_connections(settings.tuning.api_max_connections)
    config = uvicorn.Config(
        app,
        host=settings.api.host,
        port=settings.api.port,
        http=partial(  # type: ignore[arg-type]  # anything that makes a protocol
            Waiting, most=most, head_s=settings.tuning.api_head_s, malformed=getattr(app.state, "malformed", _as_it_is)
        ),
        ws="none",  # there are none here, and the answer to one is to be as to every other request
        backlog=BACKLOG,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=20,
    )
    return Server(config)


def most_connections(wanted: int) -> int:
    """Return as many connections as there are descriptors for, after raising the soft limit as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + BACKLOG + OTHERS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - BACKLOG - OTHERS))


def _as_it_is(_: str, answer: Problem) -> Response:
    return answer
