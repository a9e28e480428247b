"""What request fields have in common."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from guardfleet.domain.options import BEYOND_SCHEMA

# PostgreSQL cannot store NUL in JSON.
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64, pattern=r"^[^\x00]*$")],
        Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00]*$")],
    ],
    Field(max_length=16, json_schema_extra={"additionalProperties": False}),  # no name with a NUL matches the pattern
]


@dataclass(frozen=True)
class _Kept:
    """Marks a field whose strings are judged, and therefore kept as they came, whatever they hold."""


JUDGED = _Kept()
DEPRECATED = "guardfleet-deprecated"  # header that lists members under old names, each with its new one
IGNORED = "guardfleet-ignored"  # header that lists members that were accepted and have no effect


class Asked(BaseModel):
    """Base of every request model: its strings, except those to judge, must be storable.

    PostgreSQL cannot store NUL, and a lone surrogate cannot be encoded in an answer.
    """

    @field_validator("*", mode="after")
    @classmethod
    def _is_storable(cls, value: Any, info: ValidationInfo) -> Any:
        if JUDGED not in cls.model_fields[info.field_name or ""].metadata and not is_storable(value):
            raise PydanticCustomError(BEYOND_SCHEMA, "a NUL or a lone surrogate is allowed in texts only")
        return value


def is_storable(value: object) -> bool:
    """Return whether PostgreSQL and UTF-8 can represent every string in the value, which may be as deep as its parser allows."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if "\0" in one or (not one.isascii() and any("\ud800" <= char <= "\udfff" for char in one)):
                return False
        elif isinstance(one, dict):
            waiting += (*one, *one.values())
        elif isinstance(one, list | tuple):
            waiting += one
    return True
