"""The API's description of itself, held against the models that read requests."""

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from pydantic import ConfigDict, TypeAdapter
from pydantic.fields import FieldInfo

from api.http.fields import Asked
from api.server import create_app
from guardfleet.security.encryption import new_secret_key
from guardfleet.settings import load_settings
from guardfleet.store.keys import SCOPES
from tests.services.answers import Described

OPEN = {"checkLiveness", "checkReadiness", "checkHealth"}  # without a key


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    settings = load_settings(database_url="postgresql://x@127.0.0.1:1/x", secret_key=new_secret_key(), data_dir=folder)
    return create_app(settings).openapi()


@pytest.fixture(scope="module")
def operations(described: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each operation by its name."""
    found = [operation for of_path in described["paths"].values() for operation in of_path.values()]
    named = {operation["operationId"]: operation for operation in found}
    assert len(named) == len(found)
    return named


def models_of(base: type[Asked]) -> Iterator[type[Asked]]:
    for each in base.__subclasses__():
        yield each
        yield from models_of(each)


def integers() -> Iterator[tuple[str, FieldInfo, dict[str, Any]]]:
    """Each field of a request's body that takes integers and no other numbers, and the integer's schema."""
    for model in models_of(Asked):
        for name, said in model.model_json_schema()["properties"].items():
            kinds = {one.get("type"): one for one in (said, *said.get("anyOf", ()))}
            if "integer" in kinds and "number" not in kinds and model.model_config.get("strict"):
                yield f"{model.__name__}.{name}", model.model_fields[name], kinds["integer"]


@pytest.mark.parametrize(("field", "schema"), [pytest.param(field, one, id=name) for name, field, one in integers()])
def test_an_integer_may_be_written_with_a_point_as_json_schema_counts_it(field: FieldInfo, schema: dict[str, Any]) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation(), config=ConfigDict(strict=True))
    least = int(schema.get("minimum", 1))
    found = adapter.validate_python(float(least))
    assert (found, type(found)) == (least, int)


def test_a_generated_client_has_a_good_name_for_each_operation(operations: dict[str, Any]) -> None:
    assert [name for name in operations if not re.fullmatch("[a-z]+([A-Z][a-z]+)*", name)] == []


def test_each_operation_names_the_scope_that_its_key_needs(operations: dict[str, Any]) -> None:
    ways = {name: operation.get("security", ()) for name, operation in operations.items()}
    needed = {name: {scope for way in these for scopes in way.values() for scope in scopes} for name, these in ways.items()}
    assert {name for name, scopes in needed.items() if not scopes} == OPEN
    assert all(len(scopes) == 1 and scopes <= set(SCOPES) for name, scopes in needed.items() if name not in OPEN)
    assert needed["createBatch"] == {"batches:write"}
    assert [list(way) for way in ways["analyzeComment"]] == [["key"], ["keyInHeader"], ["keyInUrl"]]


def test_each_operation_says_what_it_answers(operations: dict[str, Any]) -> None:
    free = []
    for name, operation in operations.items():
        for status, said in operation["responses"].items():
            schema = said.get("content", {}).get("application/json", {}).get("schema", {"$ref": ""})
            free += [(name, status)] if schema.keys().isdisjoint(("$ref", "anyOf")) else []
    assert free == [("retrievePolicySchema", "200")]


def test_operations_name_the_headers_that_they_read(operations: dict[str, Any]) -> None:
    named = {
        name: {each["name"] for each in one.get("parameters", ()) if each["in"] == "header"} for name, one in operations.items()
    }
    assert named["createBatch"] == {"Idempotency-Key", "guardfleet-callback-secret"}
    assert named["listResults"] == {"Prefer"}
    assert named["downloadFile"] == {"Range", "If-Range", "If-None-Match"}


def test_an_answer_that_is_not_as_described_is_told(described: dict[str, Any]) -> None:
    known = {"id": "m", "object": "model", "created": 0, "owned_by": "guardfleet"}
    checks, named = Described(described), {"x-request-id": "req_1"}
    checks.require("get", "/v1/models/m", httpx2.Response(200, json=known, headers=named))
    for status, body in ((200, known | {"more": 1}), (200, {"id": "m"}), (200, known | {"created": "now"}), (204, known)):
        with pytest.raises(AssertionError, match="retrieveModel answers"):
            checks.require("get", "/v1/models/m", httpx2.Response(status, json=body, headers=named))
    with pytest.raises(AssertionError, match="without its request's id"):
        checks.require("get", "/v1/models/m", httpx2.Response(200, json=known))
