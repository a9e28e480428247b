"""How a comparison of two models is shown: how often they agree, and what changed, by language and by category or label."""

from collections import Counter
from typing import Any

from guardfleet.cli import terminal
from guardfleet.domain.verdict import GUARD
from guardfleet.sampling.estimates import Estimate, share_of
from guardfleet.store.deployments.comparisons import LABEL, SEVERITY, Cell
from guardfleet.store.deployments.deployments import Deployment

SHOWN = 10  # flips, and texts that were judged differently
WHOLE = (SEVERITY, LABEL)  # subjects that each text counts under once
Cells = dict[Cell, int]


def show(one: Deployment, cells: Cells, places: list[tuple[str, int, str, str]]) -> None:
    """Print it."""

    def say(line: str) -> None:
        terminal.say(line, to=terminal.answers)

    say(f"  agreement: {_estimate(share_of(one.agreed, one.compared))} of {one.compared:,} texts that both models judged")
    missing = "a verdict" if one.detector == GUARD else "an answer"
    say(f"  without {missing}: {one.errors:,}, by the model beside it {one.live_errors:,}")
    for (live, candidate), n in _changes(cells).items():
        if live != candidate:
            say(f"    {live} -> {candidate}: {n:,}")
    for kind in _kinds(one.detector):
        for name, (n, changed) in list(_flips(cells, kind).items())[:SHOWN]:
            say(f"  {kind} {name}: {_estimate(share_of(changed, n))} of {n:,} changed")
    per_1000 = [1000 * seconds / one.compared for seconds in (one.candidate_s, one.live_s)]
    say(f"  device seconds for 1,000 texts: {per_1000[0]:.3g}, of the model beside it {per_1000[1]:.3g}")
    if one.skipped:
        say(f"  {one.skipped:,} texts of the share were not compared: no worker had time")
    for job, seq, live, candidate in places:
        say(f"    {job} text {seq}: {live} -> {candidate}")


def as_dict(detector: str, cells: Cells) -> dict[str, Any]:
    """Return as JSON what changed: `severities` or `labels`, from which to which, and texts by each kind of flip."""
    changes = {f"{live} -> {candidate}": n for (live, candidate), n in _changes(cells).items()}
    flips = {
        kind: {name: {"texts": n, "changed": changed} for name, (n, changed) in _flips(cells, kind).items()}
        for kind in _kinds(detector)
    }
    return flips | {"severities" if detector == GUARD else "labels": changes}


def _kinds(detector: str) -> tuple[str, str]:
    return ("category" if detector == GUARD else "label"), "language"


def _flips(cells: Cells, kind: str) -> dict[str, tuple[int, int]]:
    """Return by category or label (those that either model gave) or by language: texts, and how many of them changed."""
    texts, changed = Counter[str](), Counter[str]()
    for cell, n in cells.items():
        for name in _names(cell, kind):
            texts[name] += n
            changed[name] += n if cell.live != cell.candidate else 0
    return {name: (n, changed[name]) for name, n in texts.most_common()}


def _names(cell: Cell, kind: str) -> set[str]:
    if kind == "language":
        return {cell.language} if cell.subject in WHOLE else set()
    if kind == "label":
        return {cell.live, cell.candidate}
    return set() if cell.subject in WHOLE else {cell.subject}


def _changes(cells: Cells) -> dict[tuple[str, str], int]:
    found = Counter[tuple[str, str]]()
    for cell, n in cells.items():
        if cell.subject in WHOLE:
            found[cell.live, cell.candidate] += n
    return dict(found.most_common())


def _estimate(found: Estimate | None) -> str:
    return "undefined" if found is None else f"{found.value:.2%} ({found.low:.2%} to {found.high:.2%})"
