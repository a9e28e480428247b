"""`guardfleet reviews`: the texts that wait for a person, oldest first."""

import json
from collections.abc import Mapping

from guardfleet.cli import DONE, terminal
from guardfleet.cli.tenants import job_of, tenant_of
from guardfleet.jobs import review
from guardfleet.settings import Settings

TITLES = ("text", "row", "verdict", "unsafe", "rule", "judged")


def listing(settings: Settings, *, job: str | None, limit: int, after: str | None, tenant: str, as_json: bool) -> int:
    """Print one page."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        of = None if job is None else job_of(db, tenant_id, job).id
        found = review.page(db, tenant_id, job_id=of, after=after, limit=limit)
    if as_json:
        for one in found:
            print(json.dumps(one))
        return DONE
    rows = [
        (
            one["id"],
            one["row_id"] or "",
            one["verdict"]["severity"],
            _unsafe(one["verdict"]["probabilities"]),
            (one["decision"] and one["decision"]["rule"]) or "-",
            one["done_at"][:16].replace("T", " "),
        )
        for one in found
    ]
    if not rows:
        terminal.say("nothing waits for a review")
        return DONE
    terminal.say(terminal.listed(TITLES, rows, to=terminal.answers, numbers=("unsafe",), cut="row"), to=terminal.answers)
    if len(found) == limit:
        terminal.say(f"more: guardfleet reviews --after {found[-1]['id']}")
    return DONE


def _unsafe(probabilities: Mapping[str, float] | None) -> str:
    return "-" if probabilities is None else f"{probabilities['unsafe']:.3f}"
