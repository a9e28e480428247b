"""The description of the API: FastAPI's own, plus what it cannot know: our errors, the key, the webhooks, examples."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.body import policy_document
from api.google import errors
from api.google.errors import PLACES
from api.routes import batches
from guardfleet.domain.events import KINDS
from guardfleet.domain.options import OLD_NAMES

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "RFC 9457, with the `error` object that OpenAI's clients read.",
    "required": ["type", "title", "status", "detail", "error"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:guardfleet:problem:not_found"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        },
        "problems": {
            "type": "array",
            "description": "Everything that is wrong with a policy (`invalid_policy`) or a list (`invalid_list`).",
            "items": {
                "type": "object",
                "required": ["line", "where", "cause"],
                "properties": {
                    "line": {"type": ["integer", "null"]},
                    "where": {"type": "string", "examples": ["rules[0].when.category[0]"]},
                    "cause": {"type": "string"},
                },
            },
        },
    },
}
EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["id", "object", "type", "created_at", "timestamp", "data"],
    "properties": {
        "id": {"type": "string", "description": "The same at each attempt; use it to recognise repeats."},
        "object": {"const": "event"},
        "type": {"enum": list(KINDS)},
        "created_at": {"type": "integer", "description": "Events arrive in any order: order them by this and by their counts."},
        "timestamp": {"type": "string", "format": "date-time"},
        "data": {
            "type": "object",
            "required": ["id"],
            "properties": {
                "id": {"type": "string"},
                "unsafe": {"type": "integer", "description": "Of `verdict.flagged`: the shard's unsafe texts."},
                "actions": {
                    "type": "object",
                    "description": "Of `verdict.flagged`, where a policy decided: the shard's texts to flag, review and block.",
                    "additionalProperties": {"type": "integer"},
                },
            },
        },
    },
}


def _answer(media: str, schema: str) -> dict[str, Any]:
    return {"description": "An error.", "content": {media: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def install(app: FastAPI) -> None:
    """Install this description in the application."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]


def _tell_old_names(parameters: list[dict[str, Any]]) -> None:
    """Add each option under its old name, which is accepted for one more version."""
    by_name = {parameter["name"]: parameter for parameter in parameters}
    for old, new in OLD_NAMES.items():
        said = {"name": old, "deprecated": True, "description": f"The old name of `{new}`."}
        parameters.append(by_name[new] | said)


def _described(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, routes=app.routes, description=app.description)
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= {**batches.SCHEMAS, **policy_document.SCHEMAS, "Problem": PROBLEM, "GoogleError": errors.SCHEMA, "Event": EVENT}
    _tell_old_names(found["paths"]["/v1/batches"]["post"]["parameters"])
    problem, google = _answer("application/problem+json", "Problem"), _answer("application/json", "GoogleError")
    for path, operations in found["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            if "HTTPValidationError" in str(responses.get("422")):
                del responses["422"]
            if "security" in operation:
                wrong = google if path.startswith(PLACES) else problem
                responses |= {"4XX": wrong, "5XX": wrong}
    found["webhooks"] = {
        "event": {
            "post": {
                "summary": "An event of a batch",
                "description": "Signed as Standard Webhooks v1. Answer 2xx within 15 s to confirm it; 410 stops all deliveries.",
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Event"}}}},
                "responses": {"2XX": {"description": "Received."}},
            }
        }
    }
    return found
