"""What request fields have in common."""

from pydantic import BeforeValidator


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# A JSON number without a fraction is an integer, however it is written; a boolean is none. To stand behind the field's limits.
WHOLE = BeforeValidator(_whole)
