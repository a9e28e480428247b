"""Write a policy as YAML that `reading.read` reads as the same policy: each part in its order, so that lines can be compared."""

from typing import Any

import yaml

from guardfleet.policy.document import Policy
from guardfleet.policy.reading import RESOLVERS

WIDTH = 120


class _Dumper(yaml.SafeDumper):
    """Quotes every word that either YAML 1.1 or `reading` would read as something else."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, ()), *RESOLVERS.get(first, ())]
        for first in yaml.SafeDumper.yaml_implicit_resolvers.keys() | RESOLVERS.keys()
    }


def write(policy: Policy) -> str:
    """Return the policy's document."""
    return of_value(policy.model_dump(mode="json", exclude_unset=True))


def of_value(document: Any) -> str:
    """Return a document as it was stored, which this release may not understand."""
    written: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH, default_flow_style=None)
    return written
