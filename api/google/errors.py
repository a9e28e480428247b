"""Errors as Google's APIs write them (AIP-193), for the clients of Perspective: `code` is the status, and `details` is never empty.

A key that is not valid is 400 and none is 403, as there: clients look for these, and for the sentence (the client `perspective.py`
compares it).
"""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.problems import PAGES, Problem

PLACES = ("/v1alpha1/", "/$discovery/", "/discovery/")
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "OUT_OF_RANGE",
    415: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "An error as Google's APIs write it (AIP-193).",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "status", "details"],
            "properties": {
                "code": {"type": "integer", "description": "The status of the answer."},
                "message": {"type": "string"},
                "status": {"enum": sorted({*STATUSES.values(), "UNKNOWN"})},
                "details": {"type": "array", "minItems": 1, "items": {"type": "object", "required": ["@type"]}},
            },
        }
    },
}
KEYLESS = "invalid_api_key"
WRONG_KEY = (400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT", "API_KEY_INVALID")
NO_KEY = (403, "Send your API key as ?key=, in x-goog-api-key, or as a bearer.", "PERMISSION_DENIED", "CREDENTIALS_MISSING")
CARRIERS = (b"authorization", b"x-goog-api-key")


class GoogleErrors:
    """Gives the errors of Perspective's routes Google's shape, wherever in the server they were made."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"].startswith(PLACES):
            scope[PAGES] = _reshaped
        await self._app(scope, receive, send)


def error_of(problem: Mapping[str, Any], *, has_key: bool) -> dict[str, Any]:
    """Return Google's error for one of ours, with the status that is sent as its `code`."""
    status, said, own = problem["status"], problem["detail"], problem["error"]
    name, reason = STATUSES.get(status, "UNKNOWN"), own["code"].upper()
    if own["code"] == KEYLESS:
        status, said, name, reason = WRONG_KEY if has_key else NO_KEY
    param = own["param"]
    details: list[dict[str, Any]] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": "guardfleet",
            "metadata": {} if param is None else {"param": param},
        }
    ]
    if param is not None:
        violation = {"field": param, "description": said}
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]})
    return {"error": {"code": status, "message": said, "status": name, "details": details}}


async def _reshaped(scope: Scope, refused: Problem) -> Response:
    has_key = b"key=" in scope["query_string"] or any(name in CARRIERS for name, _ in scope["headers"])
    error = error_of(refused.said, has_key=has_key)
    return JSONResponse(error, error["error"]["code"], refused.given)
