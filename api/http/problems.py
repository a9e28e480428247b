"""Errors over HTTP: one body that is both RFC 9457 problem+json and OpenAI's `error` object."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from guardfleet.domain.options import BEYOND_SCHEMA
from guardfleet.errors import AwayError, ConfigurationError, NotFoundError, OverloadedError, RejectedError, RetryableError
from guardfleet.lists.reading import ListError
from guardfleet.policy.reading import MOST_PROBLEMS, PolicyError
from guardfleet.store import installation
from guardfleet.telemetry.logs import get_logger

TITLES = {
    400: "Bad request",
    401: "No valid API key",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Too slow",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported content",
    422: "Invalid request",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available now",
}
KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
METHOD_NOT_ALLOWED = 405
RETRY_AFTER_S = 5
PAGES = "guardfleet.pages"  # in the scope, where people or other programs look: makes what is sent in place of a problem


class Problem(JSONResponse):
    """A problem as it is sent to programs; where people look, as the page that is made of it there."""

    def __init__(self, body: Mapping[str, Any], status: int, given: Mapping[str, str]) -> None:
        super().__init__(body, status, given, media_type="application/problem+json")
        self.said, self.detail, self.given = body, str(body["detail"]), given

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        page: Callable[[Scope, Problem], Awaitable[Response]] | None = scope.get(PAGES)
        if page is None:
            await super().__call__(scope, receive, send)
        else:
            await (await page(scope, self))(scope, receive, send)


class ProblemError(HTTPException):
    """An answer other than success, raised by a route or while its body is read (where only HTTPException gets through)."""

    def __init__(
        self, status: int, code: str, detail: str, *, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, headers)
        self.code, self.param = code, param


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    param: str | None = None,
    headers: dict[str, str] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Problem:
    """Build the response, with `more` members. Quoted parts of the request that cannot be encoded are escaped."""
    detail, param = _encodable(detail), None if param is None else _encodable(param)
    title = TITLES.get(status, "Error")
    kind = "server_error" if status >= 500 else KINDS.get(status, "invalid_request_error")  # noqa: PLR2004
    body: dict[str, Any] = {
        "type": f"urn:guardfleet:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "error": {"message": detail, "type": kind, "param": param, "code": code},
        **(more or {}),
    }
    return Problem(body, status, headers or {})


def install(app: FastAPI) -> None:
    """Replace the framework's own error bodies, which lose code and field."""

    @app.exception_handler(ProblemError)
    async def _(_: Request, error: ProblemError) -> Problem:
        return problem(error.status_code, error.code, error.detail, param=error.param, headers=dict(error.headers or {}))

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Problem:
        code = {400: "invalid_json", 404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        headers = dict(error.headers or {})
        if error.status_code == METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_methods(app, request))
        return problem(error.status_code, code, str(error.detail), headers=headers)

    app.add_exception_handler(RequestValidationError, _of_wrong_form)

    @app.exception_handler(NotFoundError)
    async def _(_: Request, error: NotFoundError) -> Problem:
        return problem(404, "not_found", str(error), param=error.param)

    @app.exception_handler(OverloadedError)
    async def _(_: Request, error: OverloadedError) -> Problem:
        return problem(429, "overloaded", str(error), headers={"Retry-After": str(int(error.retry_after_s))})

    @app.exception_handler(PolicyError)
    async def _(_: Request, error: PolicyError) -> Problem:
        problems = [
            {"line": one.line or None, "where": _encodable(one.where), "cause": _encodable(one.cause)} for one in error.problems
        ]
        return problem(422, "invalid_policy", str(error), param="policy", more={"problems": problems})

    @app.exception_handler(ListError)
    async def _(_: Request, error: ListError) -> Problem:
        problems = [
            {"line": line or None, "where": "", "cause": _encodable(cause)} for line, cause in error.problems[:MOST_PROBLEMS]
        ]
        return problem(422, "invalid_list", str(error), param="list", more={"problems": problems})

    @app.exception_handler(RejectedError)
    async def _(_: Request, error: RejectedError) -> Problem:
        return problem(400, "rejected", str(error), param=error.param)

    @app.exception_handler(RetryableError)
    async def _(request: Request, error: RetryableError) -> Problem:
        away = unavailable(request, error)
        return problem(away.status_code, away.code, away.detail, headers=dict(away.headers or {}))

    app.add_exception_handler(ConfigurationError, _of_another_key)


def failed() -> Problem:
    """Return the answer to a request that failed because of a defect."""
    return problem(500, "internal_error", "guardfleet failed on this request: look for the request id in its log.")


def unavailable(request: Request, error: RetryableError) -> ProblemError:
    """Return the answer while a service is down. Details of the failure go to the log only."""
    get_logger().warning("request_failed", route=request.url.path, reason=str(error))
    service = error.service if isinstance(error, AwayError) else "service"
    detail = f"the {service} is not available now; nothing was lost, try again."
    return ProblemError(503, "unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)})


async def _of_another_key(request: Request, error: Exception) -> Problem:
    """Answer for a process that was not restarted after the secret key was rotated. Any other such error is a defect."""
    context = request.app.state.context
    try:
        is_foreign = await run_in_threadpool(installation.is_foreign, context.db, context.keyring)
    except RetryableError:
        raise error from None
    if not is_foreign:
        raise error
    get_logger().warning("request_failed", route=request.url.path, reason=str(error))
    detail = "this server lacks the installation's secret key, which was rotated: its operator must restart it with that key."
    return problem(503, "unavailable", detail, headers={"Retry-After": str(RETRY_AFTER_S)})


async def _of_wrong_form(request: Request, error: Exception) -> Problem:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for nothing else
    found = _nearest(error)
    if not found.param and "json" not in request.headers.get("content-type", ""):
        return problem(415, "unsupported_content_type", "send Content-Type: application/json.")
    return problem(found.status, "invalid_parameter", found.detail, param=found.param)


@dataclass(frozen=True)
class _Fault:
    """What is wrong with a request's form: 400 for what the schema could not express, else 422."""

    status: int
    detail: str
    param: str | None


def _nearest(error: RequestValidationError) -> _Fault:
    """Return the first fault; for a field with alternatives, that of the alternative closest to the input."""
    faults = [(_path(each, error.body), each) for each in error.errors()]
    field = faults[0][0][:1]
    deepest = max(len(path) for path, _ in faults if path[:1] == field)
    param = next(path for path, _ in faults if path[:1] == field and len(path) == deepest)
    nearest = [each for path, each in faults if path == param]
    status = 400 if nearest[0]["type"] == BEYOND_SCHEMA else 422
    details = dict.fromkeys(str(each["msg"]) for each in nearest)
    return _Fault(status, ", or: ".join(details), _named(param) or None)


def _named(path: Sequence[int | str]) -> str:
    """Format a path as a caller would write it: `input[1].text`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _path(error: Mapping[str, Any], body: object) -> tuple[int | str, ...]:
    """Return the fault's path in the body, without the names of a union's branches."""
    source, *position = error["loc"]
    if source != "body" or body is None:
        return tuple(position)
    path: list[int | str] = []
    for part in position:
        if (isinstance(body, dict) and part in body) or (isinstance(body, list) and isinstance(part, int)):
            body = body[part]
            path.append(part)
    return (*path, position[-1]) if error["type"] == "missing" and position else tuple(path)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _methods(app: FastAPI, request: Request) -> list[str]:
    """Return all methods of the path: several routes may share it, and the framework names only the first one's."""
    found: set[str] = set()
    for path, operations in app.openapi()["paths"].items():
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))
        if re.fullmatch(pattern, request.url.path):
            found |= {method.upper() for method in operations}
    found |= {"HEAD"} if "GET" in found else set()
    return sorted(found)
