"""How values of settings are written: lists, networks, rate limits."""

import ipaddress
import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field


def _items(value: Any) -> Any:
    """Parse a list as people write it, separated by commas; JSON too."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.lstrip().startswith("[") else [item.strip() for item in value.split(",") if item.strip()]


def _network(value: str) -> str:
    """Validate a network in CIDR notation. Raises ValueError."""
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f"{error}; write networks as 10.0.0.0/8 or fc00::/7, separated by commas") from None
    return value


def _limit(value: str) -> str:
    """Validate a rate limit, or an empty value. Raises ValueError."""
    if value and not re.fullmatch(r"\d+\s*(/|per)\s*(\d+\s*)?(second|minute|hour|day|month|year)s?", value.strip().lower()):
        raise ValueError("this is not a valid rate limit; write it as 600/minute or 1000000/day")
    return value


Listed = BeforeValidator(_items)
Network = Annotated[str, AfterValidator(_network)]
Limit = Annotated[str, AfterValidator(_limit)]
Delay = Annotated[float, Field(ge=0.0, le=31_536_000.0)]
