"""What request fields have in common."""

from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints

from guardfleet.plan import NAME_CHARS


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# A JSON number without a fraction is an integer, however it is written; a boolean is none. To stand behind the field's limits.
WHOLE = BeforeValidator(_whole)
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=NAME_CHARS)]
# PostgreSQL keeps no NUL in its JSON.
Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(max_length=64, pattern=r"^[^\x00]*$")],
        Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00]*$")],
    ],
    Field(max_length=16, json_schema_extra={"additionalProperties": False}),  # names with a NUL are none of the pattern
]
