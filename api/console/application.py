"""The console as an application of its own, mounted in the API: routes, error pages, reports of violations."""

from functools import partial

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from api.console.access import Access
from api.console.asking import Ask, body_of
from api.console.navigation import areas_of
from api.console.pages import jobs, preferences, report, sign_in, try_it, verdicts
from api.console.pages.fleet import workers
from api.console.pages.lists import versions as lists
from api.console.pages.policies import versions as policies
from api.console.pages.review import reviewing
from api.console.refusing import SAID, page_of
from api.console.refusing import page as refusal
from api.console.routing import page
from api.context import Context
from api.http.problems import ProblemError, unavailable
from guardfleet.errors import NotFoundError, OverloadedError, RejectedError, RetryableError
from guardfleet.telemetry.logs import get_logger

MOST_REPORT = 16_384  # bytes of a report
MOST_LOGGED = 100  # characters


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
    return app


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
    return refusal(request, error.status_code, str(error.detail), error.headers or {})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    return page_of(request, error.status_code, str(error.detail), error.headers or {})


async def _told(status: int, request: Request, error: Exception) -> Response:
    return refusal(request, status, str(error), {})


async def _away(request: Request, error: Exception) -> Response:
    assert isinstance(error, RetryableError)  # noqa: S101
    away = unavailable(request, error)
    return refusal(request, away.status_code, str(away.detail), away.headers or {})


async def _failed(request: Request, error: Exception) -> Response:
    """Answer after a defect; the error goes on to the log."""
    del error
    return refusal(request, 500, SAID[500], {})
