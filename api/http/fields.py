"""What request fields have in common."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

# PostgreSQL keeps no NUL in its JSON.
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64, pattern=r"^[^\x00]*$")],
        Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00]*$")],
    ],
    Field(max_length=16, json_schema_extra={"additionalProperties": False}),  # names with a NUL are none of the pattern
]


@dataclass(frozen=True)
class _Kept:
    """Marks a field whose strings are judged, and so kept as they came, whatever they hold."""


JUDGED = _Kept()
DEPRECATED = "guardfleet-deprecated"  # the header that names members under old names, each with its new one
IGNORED = "guardfleet-ignored"  # the header that names members which were taken and do nothing
UNSTORABLE = "unstorable"  # the type of the error


class Asked(BaseModel):
    """What every request says in a model of its own: no string of it, but those that are judged, holds what cannot be stored.

    PostgreSQL keeps no NUL, and half a surrogate pair is in no encoding that an answer could have.
    """

    @field_validator("*", mode="after")
    @classmethod
    def _is_storable(cls, value: Any, info: ValidationInfo) -> Any:
        if JUDGED not in cls.model_fields[info.field_name or ""].metadata and not is_storable(value):
            raise PydanticCustomError(UNSTORABLE, "a NUL or half of a surrogate pair is taken in texts only")
        return value


def is_storable(value: object) -> bool:
    """Whether PostgreSQL and UTF-8 can hold every string in it."""
    if isinstance(value, str):
        return "\0" not in value and (value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value))
    if isinstance(value, dict):
        return all(is_storable(key) and is_storable(inner) for key, inner in value.items())
    return not isinstance(value, list | tuple) or all(map(is_storable, value))
