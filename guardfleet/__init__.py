"""guardfleet: a queue-driven batch moderation worker fleet.

The public names that applications import, each loaded on first use: `from guardfleet import Client, JobOptions`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guardfleet.client.asynchronous import AsyncDirectClient
    from guardfleet.client.direct import DirectClient
    from guardfleet.client.http import AsyncClient, Client
    from guardfleet.client.job import Job, SubmitOptions
    from guardfleet.client.verdict import Verdict
    from guardfleet.domain.options import JobOptions
    from guardfleet.domain.verdict import Severity
    from guardfleet.errors import GuardfleetError

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "AsyncDirectClient",
    "Client",
    "DirectClient",
    "GuardfleetError",
    "Job",
    "JobOptions",
    "Severity",
    "SubmitOptions",
    "Verdict",
]
HOMES = {
    "AsyncClient": "client.http",
    "AsyncDirectClient": "client.asynchronous",
    "Client": "client.http",
    "DirectClient": "client.direct",
    "GuardfleetError": "errors",
    "Job": "client.job",
    "JobOptions": "domain.options",
    "Severity": "domain.verdict",
    "SubmitOptions": "client.job",
    "Verdict": "client.verdict",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'guardfleet' has no attribute {name!r}")
    return getattr(import_module(f"guardfleet.{HOMES[name]}"), name)
