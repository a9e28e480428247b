"""What the models of answers share."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

JSON = "application/json"
UnixTime = Annotated[int, Field(description="Unix time, in seconds.")]
IsoTime = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


def one_of(words: Iterable[str]) -> Any:
    """Return the metadata of a string that is one of these words, which code defines elsewhere."""
    return Field(json_schema_extra={"enum": list(words)})


def may_lack(description: str) -> Any:
    """Return a field whose member may be missing from an answer; its type ends in `| SkipJsonSchema[None]` if it is never null."""
    return Field(default=None, description=description, json_schema_extra=_without_default)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


class Answer(BaseModel):
    """Base of every model of an answer. Members without a default are always there."""


Item = TypeVar("Item", bound=Answer)


class Page(Answer, Generic[Item]):
    """A page of a list, in OpenAI's form."""

    object: Literal["list"]
    data: list[Item]
    first_id: str | None
    last_id: str | None = Field(description="Pass it as `after` for the next page.")
    has_more: bool


class Deleted(Answer):
    """What was deleted."""

    id: str
    object: str
    deleted: Literal[True]


class Actor(Answer):
    """Who did something."""

    type: str
    id: str | None


class CodedReason(Answer):
    """Why one thing of several has no result."""

    code: str
    detail: str | None


def answer(*models: type[Answer], status: int = 200, description: str = "Done.", **headers: str) -> dict[int | str, dict[str, Any]]:
    """Return `responses` of a route that answers in JSON with one of these models, and with these headers, each with what it says.

    By reference: `api/openapi.py` adds the models, once in a process. Given the models, the framework would make each anew for each
    route and application, which takes three times as long as all the rest.
    """
    refs = [{"$ref": f"#/components/schemas/{model.__name__}"} for model in models]
    told = {name.replace("_", "-"): {"description": said, "schema": {"type": "string"}} for name, said in headers.items()}
    content = {JSON: {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}}
    return {status: {"description": description, "content": content, **({"headers": told} if told else {})}}


def every(base: type[Answer] = Answer) -> Iterator[type[Answer]]:
    """Yield all models of answers that have a name of their own: a page of something is called by its subclass."""
    for model in base.__subclasses__():
        if not model.__pydantic_generic_metadata__["args"] and not model.__pydantic_generic_metadata__["parameters"]:
            yield model
        yield from every(model)
