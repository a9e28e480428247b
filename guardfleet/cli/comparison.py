"""How a comparison of two models is shown: how often they agree, and what changed, by language and by category or label."""

from typing import Any

from guardfleet.cli import terminal
from guardfleet.domain.verdict import GUARD
from guardfleet.sampling.estimates import Estimate, share_of
from guardfleet.store.deployments import flips
from guardfleet.store.deployments.flips import Cells
from guardfleet.store.deployments.row import Deployment

SHOWN = 10  # flips, and texts that were judged differently


def show(one: Deployment, cells: Cells, places: list[tuple[str, int, str, str]]) -> None:
    """Print it."""

    def say(line: str) -> None:
        terminal.say(line, to=terminal.answers)

    say(f"  agreement: {_estimate(share_of(one.agreed, one.compared))} of {one.compared:,} texts that both models judged")
    missing = "a verdict" if one.detector == GUARD else "an answer"
    say(f"  without {missing}: {one.errors:,}, by the model beside it {one.live_errors:,}")
    for (live, candidate), n in flips.changes(cells).items():
        if live != candidate:
            say(f"    {live} -> {candidate}: {n:,}")
    for kind in flips.kinds(one.detector):
        for name, (n, changed) in list(flips.by(cells, kind).items())[:SHOWN]:
            say(f"  {kind} {name}: {_estimate(share_of(changed, n))} of {n:,} changed")
    per_1000 = [1000 * seconds / one.compared for seconds in (one.candidate_s, one.live_s)]
    say(f"  device seconds for 1,000 texts: {per_1000[0]:.3g}, of the model beside it {per_1000[1]:.3g}")
    if one.skipped:
        say(f"  {one.skipped:,} texts of the share were not compared: no worker had time")
    for job, seq, live, candidate in places:
        say(f"    {job} text {seq}: {live} -> {candidate}")


def as_dict(detector: str, cells: Cells) -> dict[str, Any]:
    """Return as JSON what changed: `severities` or `labels`, from which to which, and texts by each kind of flip."""
    changes = {f"{live} -> {candidate}": n for (live, candidate), n in flips.changes(cells).items()}
    changed_by = {
        kind: {name: {"texts": n, "changed": changed} for name, (n, changed) in flips.by(cells, kind).items()}
        for kind in flips.kinds(detector)
    }
    return changed_by | {"severities" if detector == GUARD else "labels": changes}


def _estimate(found: Estimate | None) -> str:
    return "undefined" if found is None else f"{found.value:.2%} ({found.low:.2%} to {found.high:.2%})"
