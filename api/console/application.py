"""The console as an application of its own, mounted in the API: routes, error pages, headers, reports of violations."""

import http
from collections.abc import Mapping
from functools import partial

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.console.access import Access
from api.console.asking import Ask, body_of, language_of
from api.console.navigation import HOME, areas_of
from api.console.pages import jobs, preferences, report, sign_in, try_it, verdicts
from api.console.pages.fleet import workers
from api.console.pages.lists import versions as lists
from api.console.pages.policies import versions as policies
from api.console.pages.review import reviewing
from api.console.rendering import render
from api.console.routing import page
from api.context import Context
from api.http.problems import ProblemError, unavailable
from guardfleet.errors import NotFoundError, OverloadedError, RejectedError, RetryableError
from guardfleet.telemetry.logs import get_logger

MOST_REPORT = 16_384  # bytes of a report
MOST_LOGGED = 100  # characters
# Everything that a page loads comes from here, and nothing is written in it: no script, no style, no form to elsewhere.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'; report-uri /console/csp"
)
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "x-frame-options": "DENY",
}
FOREVER = "public, max-age=31536000, immutable"  # of files whose address changes with their content


def make_console(context: Context) -> ASGIApp:
    """Return the application; its paths begin after `/console`."""
    areas = [sign_in, preferences, try_it, jobs, report, verdicts, reviewing, policies, lists, workers]
    if context.settings.console.oidc_issuer:
        from api.console.pages import sign_in_oidc  # noqa: PLC0415 - with an HTTP client, which no other page needs

        areas.append(sign_in_oidc)
    app = Starlette(
        routes=[
            page("/", _home),
            Route("/csp", _violation, methods=["POST"]),
            *(route for area in areas for route in area.routes),
        ],
        exception_handlers={
            ProblemError: _problem,
            HTTPException: _http_error,
            NotFoundError: partial(_told, 404),
            RejectedError: partial(_told, 400),
            OverloadedError: partial(_told, 429),
            RetryableError: _away,
            Exception: _failed,
        },
    )
    app.mount("/static", StaticFiles(packages=[("api.console", "static")]))
    app.router.redirect_slashes = False  # it would lead to whichever host the request names, unencrypted
    app.state.context, app.state.access = context, Access(context)
    return Shielded(app)


class Shielded:
    """Gives each answer the headers that keep a page to itself, and out of every cache."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_static = scope["path"].startswith("/console/static/")

        async def shielded(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = {name.lower() for name, _ in message["headers"]}
                mine = {**HEADERS, "cache-control": FOREVER} if is_static and message["status"] == 200 else HEADERS  # noqa: PLR2004
                message["headers"] = [
                    *message["headers"],
                    *((name.encode(), value.encode()) for name, value in mine.items() if name.encode() not in known),
                ]
            await send(message)

        await self._app(scope, receive, shielded)


async def _home(ask: Ask) -> Response:
    """Go to the first area that somebody may enter."""
    areas = areas_of(ask.caller)
    if not areas:
        raise ProblemError(403, "insufficient_scope", "your role opens no page of the console.")
    return RedirectResponse(areas[0].path, 303)


async def _violation(request: Request) -> Response:
    """Log what a browser refused to load: a defect of ours, or an attack that failed."""
    try:
        report = orjson.loads(await body_of(request, MOST_REPORT))["csp-report"]
        directive = str(report.get("effective-directive") or report.get("violated-directive"))[:MOST_LOGGED]
    except (ValueError, KeyError, TypeError, AttributeError):
        directive = "unreadable"
    get_logger().warning("console_violation", reason=directive.encode("ascii", "replace").decode())
    return Response(status_code=204)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101 - registered for nothing else
    return _page(request, error.status_code, str(error.detail), dict(error.headers or {}))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    detail = {404: "There is no such page.", 405: "A page cannot be asked for like this."}.get(error.status_code, str(error.detail))
    return _page(request, error.status_code, detail, dict(error.headers or {}))


async def _told(status: int, request: Request, error: Exception) -> Response:
    return _page(request, status, str(error), {})


async def _away(request: Request, error: Exception) -> Response:
    assert isinstance(error, RetryableError)  # noqa: S101
    away = unavailable(request, error)
    return _page(request, away.status_code, str(away.detail), dict(away.headers or {}))


async def _failed(request: Request, error: Exception) -> Response:
    """Answer after a defect; the error goes on to the log."""
    del error
    return _page(request, 500, "guardfleet failed on this request: its operator finds the number below in the log.", {})


def _page(request: Request, status: int, detail: str, headers: dict[str, str]) -> Response:
    session = getattr(request.state, "session", None)
    fragment = "hx-request" in request.headers
    values = {"status": status, "title": http.HTTPStatus(status).phrase, "detail": detail, "request_id": request.state.request_id}
    if session is None or fragment:
        template, around = ("error_part.html" if fragment else "error_alone.html"), {"theme": "auto", "home": HOME}
    else:
        template, around = "error.html", Ask(request, request.app.state.context, request.app.state.access, session).around()
    if fragment:  # a part of the page could not be had: its place keeps what it shows, and the page says why
        headers |= {"HX-Retarget": "#notice", "HX-Reswap": "innerHTML"}
    return HTMLResponse(render(template, language=language_of(request, session), **around, **values), status, headers)
