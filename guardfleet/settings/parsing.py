"""How values of settings are written: lists, networks, rate limits."""

import ipaddress
import json
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from guardfleet.domain.detection import DETECTOR_NAME
from guardfleet.domain.scopes import ROLES
from guardfleet.domain.verdict import GUARD


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


def _served(value: str) -> str:
    """Validate a detector and its model. Raises ValueError."""
    name, found, model = value.partition("=")
    if not found or not model.strip() or not DETECTOR_NAME.fullmatch(name.strip()) or name.strip() == GUARD:
        raise ValueError("write a detector as its name and its model, as ai-text=demo or toxicity=/models/toxicity")
    return f"{name.strip()}={model.strip()}"


def _granted(value: str) -> str:
    """Validate what a value of a claim grants. Raises ValueError."""
    claimed, _, role = value.rpartition("=")
    role, _, tenant = role.partition("@")
    if not claimed.strip() or role.strip() not in ROLES:
        raise ValueError(f"write VALUE=ROLE or VALUE=ROLE@TENANT, with a role of {', '.join(ROLES)}")
    return f"{claimed.strip()}={role.strip()}" + (f"@{tenant.strip()}" if tenant.strip() else "")


def each_once(served: tuple[str, ...]) -> tuple[str, ...]:
    """Validate that no detector has two models. Raises ValueError."""
    names = [one.partition("=")[0] for one in served]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{twice[0]} stands here twice: a detector has one model")
    return served


Listed = BeforeValidator(_items)
Network = Annotated[str, AfterValidator(_network)]
Served = Annotated[str, AfterValidator(_served)]
Granted = Annotated[str, AfterValidator(_granted)]
Limit = Annotated[str, AfterValidator(_limit)]
Delay = Annotated[float, Field(ge=0.0, le=31_536_000.0)]
