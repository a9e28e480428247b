"""How values of settings are written: lists, networks, limits, URLs."""

import ipaddress
import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field


def _items(value: Any) -> Any:
    """Read a list as people write it, items with commas between; JSON too."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.lstrip().startswith("[") else [item.strip() for item in value.split(",") if item.strip()]


def _network(value: str) -> str:
    """Check a network in CIDR. Raises ValueError."""
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f"{error}; give networks as 10.0.0.0/8 or fc00::/7, with commas between") from None
    return value


def _limit(value: str) -> str:
    """Check so many in a time, or nothing. Raises ValueError."""
    if value and not re.fullmatch(r"\d+\s*(/|per)\s*(\d+\s*)?(second|minute|hour|day|month|year)s?", value.strip().lower()):
        raise ValueError("not a rate limit; write one as 600/minute or 1000000/day")
    return value


Listed = BeforeValidator(_items)
Network = Annotated[str, AfterValidator(_network)]
Limit = Annotated[str, AfterValidator(_limit)]
Delay = Annotated[float, Field(ge=0.0, le=31_536_000.0)]
