"""Errors as Google's APIs write them (AIP-193), for the clients of Perspective: `code` is the status, and `details` is never empty.

A key that is not valid is 400 and none is 403, as there: clients look for these, and for the sentence (the client `perspective.py`
compares it). The log and the metrics of this server count both as 401, as everywhere.
"""

import json
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
KEYLESS = "invalid_api_key"
WRONG_KEY = (400, "API key not valid. Please pass a valid API key.", "INVALID_ARGUMENT", "API_KEY_INVALID")
NO_KEY = (403, "Send your API key as ?key=, in x-goog-api-key, or as a bearer.", "PERMISSION_DENIED", "CREDENTIALS_MISSING")
CARRIERS = (b"authorization", b"x-goog-api-key")
LEAST_ERROR = 400


class GoogleErrors:
    """Gives the errors of Perspective's routes Google's shape, wherever in the server they were made."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] == "HEAD" or not scope["path"].startswith(PLACES):
            await self._app(scope, receive, send)
            return
        head: Message | None = None
        body = bytearray()

        async def reshaped(message: Message) -> None:
            nonlocal head
            if message["type"] == "http.response.start" and _is_problem(message):
                head = message  # sent with the body, whose length is not known before
            elif head is None:
                await send(message)
            else:
                body.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    await _send(scope, head, bytes(body), send)

        await self._app(scope, receive, reshaped)


def error_of(problem: dict[str, Any], *, has_key: bool) -> dict[str, Any]:
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


async def _send(scope: Scope, head: Message, body: bytes, send: Send) -> None:
    has_key = b"key=" in scope["query_string"] or any(name in CARRIERS for name, _ in scope["headers"])
    error = error_of(json.loads(body), has_key=has_key)
    content = json.dumps(error, ensure_ascii=False).encode()
    kept = [(name, value) for name, value in head["headers"] if name.lower() not in (b"content-type", b"content-length")]
    sent = [*kept, (b"content-type", b"application/json; charset=utf-8"), (b"content-length", b"%d" % len(content))]
    await send({**head, "status": error["error"]["code"], "headers": sent})
    await send({"type": "http.response.body", "body": content})


def _is_problem(head: Message) -> bool:
    kind: bytes = dict(head.get("headers", ())).get(b"content-type", b"")
    return head["status"] >= LEAST_ERROR and kind.startswith(b"application/problem+json")
