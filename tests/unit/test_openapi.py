"""The API's description of itself, held against the models that read requests."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ConfigDict, TypeAdapter
from pydantic.fields import FieldInfo

from api.http.fields import Asked
from api.server import create_app

assert create_app  # which imports every route, and so every model of a request


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
