"""Headers that operations read, as the OpenAPI tells them: routes read them from the request itself."""

from typing import Any

from api.http.idempotency import KEY_CHARACTERS, SECRET_HEADER

PREFER, IDEMPOTENCY_KEY, CALLBACK_SECRET = "Prefer", "Idempotency-Key", SECRET_HEADER
RANGE, IF_RANGE, IF_NONE_MATCH = "Range", "If-Range", "If-None-Match"
DESCRIPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    PREFER: ("`wait=N`: for how many seconds to wait, or to work.", {"type": "string", "examples": ["wait=30"]}),
    IDEMPOTENCY_KEY: (
        "A request with the same key and the same content, within a day, makes nothing new and gets what the first one made.",
        {"type": "string", "minLength": 1, "maxLength": KEY_CHARACTERS, "pattern": "^[!-~]([ -~]*[!-~])?$"},
    ),
    CALLBACK_SECRET: ("The secret that signs the batch's callbacks; without one, the answer has a new one.", {"type": "string"}),
    RANGE: ("The part to send, as `bytes=FIRST-LAST`.", {"type": "string", "examples": ["bytes=1000-"]}),
    IF_RANGE: ("The `ETag` that the part must be of; else all is sent.", {"type": "string"}),
    IF_NONE_MATCH: ("The `ETag` that is known: the answer is 304 if nothing has changed.", {"type": "string"}),
}
PARAMETERS: dict[str, Any] = {
    name: {"name": name, "in": "header", "required": False, "description": said, "schema": schema}
    for name, (said, schema) in DESCRIPTIONS.items()
}


def reads(*names: str) -> dict[str, Any]:
    """Return `openapi_extra` of a route that reads these headers."""
    return {"parameters": [PARAMETERS[name] for name in names]}
