"""Types of request fields that several routes share."""

from typing import Annotated

from pydantic import BeforeValidator


def whole(value: object) -> object:
    """A JSON number without a fraction is an integer, however it is written; a boolean is none."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WholeNumber = Annotated[int, BeforeValidator(whole)]
