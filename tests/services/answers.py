"""Hold what an application answers to its OpenAPI: status, media type, and of JSON every member, with none beside them."""

import copy
import json
import re
from typing import Any

import httpx2
import jsonschema_rs
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient


class Described:
    """An OpenAPI, ready to check answers."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = copy.deepcopy(document)
        for schema in self._document["components"]["schemas"].values():
            _closed(schema)
        self._validators: dict[str, Any] = {}
        self._paths = [(re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), path) for path in document["paths"]]

    def require(self, method: str, path: str, answer: httpx2.Response) -> None:
        """Raise AssertionError if an operation's answer is not as described. Paths of no operation are let through."""
        found = [name for pattern, name in self._paths if pattern.fullmatch(path)]
        operation = next((one[method] for name in found if method in (one := self._document["paths"][name])), None)
        if operation is None:
            return
        said = operation["responses"].get(str(answer.status_code)) or operation["responses"].get(f"{answer.status_code // 100}XX")
        where = f"{operation['operationId']} answers {answer.status_code}"
        assert said is not None, f"{where}, which its description has not"
        assert said.get("headers", {}).keys() & {"x-request-id"} <= answer.headers.keys(), f"{where} without its request's id"
        if "content" not in said:
            assert not answer.content, f"{where} with a body, which its description has not"
            return
        media = answer.headers.get("content-type", "").partition(";")[0]
        assert media in said["content"], f"{where} as {media or 'nothing'}, not as {list(said['content'])}"
        if "json" in media and "schema" in said["content"][media]:
            wrong = self._wrong(json.dumps(said["content"][media]["schema"]), answer.content)
            assert not wrong, f"{where}: {wrong}"

    def _wrong(self, schema: str, content: bytes) -> str:
        if schema not in self._validators:
            whole = json.loads(schema) | {"components": self._document["components"]}
            self._validators[schema] = jsonschema_rs.Draft202012Validator(whole)
        found = self._validators[schema].iter_errors(json.loads(content))
        return ", ".join(f"{error.instance_path}: {error.message[:300]}" for error in found)


def check_all(patched: pytest.MonkeyPatch) -> None:
    """Check each answer that a test client gets from now on."""
    send = TestClient.send

    def sent(client: TestClient, request: Any, **options: Any) -> Any:
        answer = send(client, request, **options)
        if isinstance(client.app, FastAPI) and not options.get("stream"):
            known = client.app.state
            if not hasattr(known, "described"):
                known.described = Described(client.app.openapi())
            known.described.require(request.method.lower(), request.url.path, answer)
        return answer

    patched.setattr(TestClient, "send", sent)


def _closed(schema: Any) -> None:
    """Allow objects no members but those that are described."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for each in schema.values():
            _closed(each)
    elif isinstance(schema, list):
        for each in schema:
            _closed(each)
