"""The description of the API: FastAPI's own, plus what it cannot know: our errors, the key, the webhooks, examples."""

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from api.body import policy_document
from api.google import errors
from api.google.errors import PLACES
from api.routes import batches
from api.schemas.base import JSON, every
from api.schemas.problem import Problem
from api.schemas.webhooks import Event
from guardfleet.domain.options import OLD_NAMES

REQUEST_ID = {"x-request-id": {"description": "Names the request in the log.", "schema": {"type": "string"}}}


def _answer(media: str, schema: str) -> dict[str, Any]:
    return {"description": "An error.", "content": {media: {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def install(app: FastAPI) -> None:
    """Install this description in the application."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app)
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]


def _tell_options(parameters: list[dict[str, Any]]) -> None:
    """Tell defaults of a batch's options in words, and each option under its old name, which is accepted for one more version.

    A generated client sends what has a default, and a batch that is asked for in JSON has no options in its URL.
    """
    for parameter in parameters:
        if (default := parameter["schema"].pop("default", None)) is not None:
            said = f"Default: {json.dumps(default)}."
            parameter["description"] = f"{parameter['description']} {said}" if "description" in parameter else said
    by_name = {parameter["name"]: parameter for parameter in parameters}
    for old, new in OLD_NAMES.items():
        said_old = {"name": old, "deprecated": True, "description": f"The old name of `{new}`."}
        parameters.append(by_name[new] | said_old)


@functools.cache
def _answers() -> Mapping[str, Any]:
    """Return the schemas of all models of answers."""
    _, found = models_json_schema([(model, "serialization") for model in every()], ref_template="#/components/schemas/{model}")
    schemas: Mapping[str, Any] = found["$defs"]
    return schemas


def _add(schemas: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add schemas to those of other models. Raises ValueError if two have the same name."""
    if clash := [name for name in more if schemas.get(name, more[name]) != more[name]]:
        raise ValueError(f"two models are called {', '.join(clash)}")
    schemas |= more


def _tell_answers(responses: dict[str, dict[str, Any]]) -> None:
    """Tell headers that every answer has, and of a model nothing else: the framework adds what the function itself returns."""
    for said in responses.values():
        said["headers"] = REQUEST_ID | said.get("headers", {})
        schema = said.get("content", {}).get(JSON, {}).get("schema", {})
        if "$ref" in schema or "anyOf" in schema:
            said["content"][JSON]["schema"] = {word: schema[word] for word in ("$ref", "anyOf") if word in schema}


def _described(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, routes=app.routes, description=app.description)
    components = found.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for more in (batches.SCHEMAS, policy_document.SCHEMAS, _answers(), {"GoogleError": errors.SCHEMA}):
        _add(schemas, more)
    _tell_options(found["paths"]["/v1/batches"]["post"]["parameters"])
    problem, google = _answer("application/problem+json", Problem.__name__), _answer(JSON, "GoogleError")
    for path, operations in found["paths"].items():
        for operation in operations.values():
            operation["summary"] = re.sub("(?=[A-Z])", " ", operation["operationId"]).capitalize()
            responses = operation["responses"]
            if "HTTPValidationError" in str(responses.get("422")):
                del responses["422"]
            if "security" in operation:
                wrong = google if path.startswith(PLACES) else problem
                responses |= {"4XX": wrong, "5XX": wrong}
                _tell_answers(responses)
    found["webhooks"] = {
        "event": {
            "post": {
                "summary": "An event of a batch",
                "description": "Signed as Standard Webhooks v1. Answer 2xx within 15 s to confirm it; 410 stops all deliveries.",
                "requestBody": {"content": {JSON: {"schema": {"$ref": f"#/components/schemas/{Event.__name__}"}}}},
                "responses": {"2XX": {"description": "Received."}},
            }
        }
    }
    return found
