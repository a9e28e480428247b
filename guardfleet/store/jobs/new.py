"""A job's options as columns of the table `job`: the one list, for jobs with an intake and for those sealed from the start."""

import json
from typing import Any

from guardfleet.domain.lanes import Lane
from guardfleet.domain.options import COLUMNS, JobOptions

AS_JSON = ("metadata", "webhook_metadata")
NO_WINDOW = "24h"  # shown for a job that never expires


def columns() -> str:
    """Return the columns, as INSERT lists them."""
    return ", ".join(COLUMNS.values())


def placeholders() -> str:
    """Return the parameters of their values, in the same order."""
    each = ((column, f"%({column})s") for column in COLUMNS.values())
    return ", ".join(f"cast({value} as jsonb)" if column in AS_JSON else value for column, value in each)


def values_of(options: JobOptions) -> dict[str, Any]:
    """Return the parameters for `placeholders`."""
    values = options.stored()
    values["route"] = options.plan.first_route
    values |= {column: None if values[column] is None else json.dumps(values[column]) for column in AS_JSON}
    return values | {"lane": Lane(options.interactive), "completion_window": options.completion_window or NO_WINDOW}
