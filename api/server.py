"""The application: routes, request ids, probes, and the process around it."""

import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

from fastapi import FastAPI
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import openapi
from api.body.body_limit import CONSOLE, Bounded
from api.console.loading import Console
from api.console.navigation import HOME
from api.console.shielding import Shielded, malformed
from api.context import PASSES, Context
from api.google import maps
from api.google.errors import GoogleErrors
from api.http import problems
from api.http.connections import make_server
from api.http.head_method import Headed
from api.http.long_requests import Slots
from api.http.rate_limit import Throttle
from api.http.threads import in_thread
from api.routes import (
    audit,
    batches,
    detections,
    erasures,
    events,
    files,
    health_probes,
    holds,
    labels,
    lists,
    moderations,
    perspective,
    policies,
    prompt_policies,
    redecisions,
    results,
    retries,
    webhook_endpoints,
)
from api.services.callback_check import Receivers
from api.services.file_ingestion import FileIntakes
from api.services.file_storage import Contents
from api.services.interactive_moderation import Online
from api.services.job_watch import Watching
from guardfleet import __version__
from guardfleet.domain import ids
from guardfleet.errors import NotFoundError
from guardfleet.process import interpreter, ports
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import installation, migrate
from guardfleet.store.postgres import pooler
from guardfleet.store.postgres.database import Database
from guardfleet.telemetry import metrics, probes
from guardfleet.telemetry.health import Health, Part
from guardfleet.telemetry.logs import get_logger, told
from guardfleet.telemetry.probes import Reporting

BODIES_OF_KEY = 64  # uploads of a key that are read at once; each may hold a line of some MiB in memory
DOWNLOADS_OF_KEY, DOWNLOADS = 8, 16  # of verdicts at once; Parquet holds 20,000 rows of each in memory
FAILED = 500  # status that is logged for a request without an answer


def create_app(settings: Settings, health: Health | None = None) -> FastAPI:
    """Build the application on configured services. Raises ConfigurationError if the schema does not fit.

    `health`: looked at by the process around it; without one, the probes look themselves.
    """
    db = Database(settings.required("database_url"), application="guardfleet-api", pool_size=10)
    keyring = Keyring.of(settings)
    most = settings.tuning.api_max_connections
    limits_url = settings.api.rate_limit_url.get_secret_value() if settings.api.rate_limit_url else None
    contents = Contents(settings.api.files_url or str(settings.data_dir / "files"), keyring)
    intakes = FileIntakes(db, keyring, settings, contents)
    context = Context(
        db,
        keyring,
        settings,
        contents,
        Throttle(settings.api.rate_limit, settings.api.quota, limits_url, namespace=settings.namespace),
        intakes,
        Online(db, keyring, settings),
        Receivers(settings.webhooks.allow_networks),
        Watching(db, Slots("waiting", of_key=settings.tuning.api_max_waiting, in_all=most // 2)),
        Slots("bodies", of_key=BODIES_OF_KEY, in_all=max(1, most // 4)),
        Slots("downloads", of_key=DOWNLOADS_OF_KEY, in_all=DOWNLOADS),
        Slots("passes", of_key=1, in_all=PASSES),
        health or Health(),
        maps.load(settings.api.perspective_map),
    )
    context.health.add(installation.part(db, keyring))
    context.health.add(Part("files", contents.nearly_full, is_vital=False))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        intakes.start()
        context.online.start()
        context.health.ready()
        yield
        context.watching.stop()
        await in_thread(intakes.stop)
        await in_thread(context.online.stop)
        db.close()

    app = FastAPI(title="guardfleet", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.context = context
    for routes in (
        batches, retries, results, events, files, moderations, detections, perspective, webhook_endpoints, policies, redecisions,
        prompt_policies, lists, labels, audit, erasures, holds,
    ):  # fmt: skip
        app.include_router(routes.router)
    if settings.console.enabled:
        app.add_route("/", _to_console)
        app.add_route(CONSOLE, _to_console)
        app.router.routes.append(_mounted(Console(context)))
    problems.install(app)
    openapi.install(app)
    app.add_middleware(Bounded, max_bytes=settings.tuning.api_max_json_bytes, pause_s=settings.tuning.api_pause_s)
    app.add_middleware(Headed)
    app.add_middleware(Observed)
    app.add_middleware(GoogleErrors)
    if settings.console.enabled:
        app.add_middleware(Shielded)
        app.state.malformed = malformed

    app.include_router(health_probes.router)
    return app


def _mounted(console: Console) -> Mount:
    """Return the console's place: every path below it, one with a line break too, whose answer is the console's as well."""
    place = Mount(CONSOLE, console)
    place.path_regex = re.compile(place.path_regex.pattern, re.DOTALL)
    return place


async def _to_console(_: Request) -> Response:
    return RedirectResponse(HOME, 307, {"cache-control": "no-store"})


def serve(settings: Settings) -> int:
    """Serve until SIGTERM; requests in flight finish."""
    interpreter.hand_over_often()
    with Reporting(settings, "api") as health:
        app = create_app(settings, health)
        context: Context = app.state.context
        with closing(context.db):
            _require(context)
            interpreter.keep_what_is_loaded()
            make_server(app, settings).run()
    return 0


def _require(context: Context) -> None:
    """Raise ConfigurationError if the process could not work."""
    context.health.phase("waiting for PostgreSQL")
    migrate.wait_for_head(context.db)
    pooler.require_prepared(context.db)
    ports.require_free(context.settings.api.host, context.settings.api.port, "api_port")
    installation.require_key(context.db, context.keyring)


class Observed:
    """Gives each request an id, one log line and one observation; neither query nor body is logged."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope.setdefault("state", {})["request_id"] = ids.REQUEST.of(uuid.uuid4())
        started = time.perf_counter()
        status: int | None = None

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                said = {"x-request-id": request_id, **scope["state"].get("headers", {})}
                message["headers"] = [*message.get("headers", ()), *((k.lower().encode(), v.encode()) for k, v in said.items())]
            await send(message)

        try:
            await self._app(scope, receive, named)
        except ClientDisconnect:  # in the middle of its body: nobody is left to answer, and nothing is wrong here
            await problems.failed()(scope, receive, named)
        except Exception as error:  # noqa: BLE001 - the server would log the message, which can hold a caller's values
            get_logger().error("request_failed", request=request_id, route=_route(scope), **told(error))
            if status is None:  # else the server sees that the answer is incomplete, and closes the connection
                await problems.failed()(scope, receive, named)
        finally:
            seconds = time.perf_counter() - started
            route = _route(scope)
            if route not in probes.PROBES:  # they are no client's, and would drown what clients ask
                _tell(scope, request_id, status or FAILED, seconds)


def _tell(scope: Scope, request_id: str, status: int, seconds: float) -> None:
    """Count and log a request that has ended."""
    route, ms = _route(scope), round(1000 * seconds, 1)
    metrics.API_SECONDS.labels(route).observe(seconds)
    metrics.API_REQUESTS.labels(route, str(status)).inc()
    get_logger().info("request", request=request_id, method=scope["method"], route=route, status=status, ms=ms, **_whose(scope))


def _whose(scope: Scope) -> dict[str, Any]:
    """Return the key and the tenant of a request, and the job that it made or names."""
    state = scope["state"]
    known: dict[str, Any] = {}
    if caller := state.get("caller"):
        known |= {"key": caller.key_id, "tenant": caller.tenant_id}
    made, named = state.get("job"), scope.get("path_params", {}).get("batch_id")
    if made is None and named is not None:
        with suppress(NotFoundError):  # whatever else a caller writes there is not logged
            made = ids.JOB.parse(named)
    return known | ({"job": ids.JOB.of(made)} if made else {})


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "unknown")
