"""`guardfleet evaluate --job`: how good a job's stored verdicts are, estimated from the labels of its samples."""

import json
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from guardfleet.cli import DONE, terminal
from guardfleet.cli.output import printable
from guardfleet.cli.tenants import job_of, tenant_of
from guardfleet.jobs.assessment import Assessment, Figures, Slice, assess
from guardfleet.sampling.estimates import Estimate
from guardfleet.settings import Settings

MEANS = {"strict": "unsafe (strict)", "loose": "safe (loose)"}
NO_LABELS = "no label of {} was asked for by a sample: nothing can be estimated. `guardfleet sample {}` draws one."


def evaluate(settings: Settings, label: str, *, tenant: str, as_json: bool) -> int:
    """Print the estimates with their 95 % intervals; without labels that they do not exist, and never 0."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        job = job_of(db, tenant_id, label)
        found = assess(db, job)
    if as_json:
        print(json.dumps({"job": job.label, **_as_dict(found)}))
        return DONE
    terminal.say(f"{found.texts:,} texts, {found.labelled:,} with a label, {found.by_design:,} of them as a sample asked")
    if not found.by_design:
        terminal.say(NO_LABELS.format(job.label, job.label))
        return DONE
    table = Table(title=f"{job.label}: estimates for all {found.texts:,} texts, with 95 % intervals", title_justify="left")
    for column in ("texts", "controversial is", "precision", "recall", "F1", "false positive rate"):
        table.add_column(column, justify="left" if column in ("texts", "controversial is") else "right")
    whole = Slice(found.by_design, found.readings)
    for name, one in {"all": whole, **found.slices}.items():
        for reading, figures in one.readings.items():
            about = f"{printable(name, line_breaks=False)} ({one.by_design:,} labels)" if reading == "strict" else ""
            table.add_row(about, MEANS[reading], *(said(figure) for figure in figures.values()))
    terminal.say(table, to=terminal.answers)
    terminal.say(
        f"without a verdict: {found.errors:,} texts, {found.errors_labelled:,} of them labelled; wrong in the figures above",
        to=terminal.answers,
    )
    return DONE


def said(figure: Estimate | None) -> str:
    """Return an estimate with its interval."""
    return "undefined" if figure is None else f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _as_dict(found: Assessment) -> dict[str, Any]:
    return {
        "texts": found.texts,
        "labels": {"texts": found.labelled, "by_design": found.by_design},
        "errors": {"texts": found.errors, "labelled": found.errors_labelled},
        **_shown(found.readings),
        "slices": {name: {"labels": one.by_design, **_shown(one.readings)} for name, one in found.slices.items()},
    }


def _shown(readings: Mapping[str, Figures]) -> dict[str, Any]:
    return {
        reading: {name: figure and figure.as_dict() for name, figure in figures.items()} for reading, figures in readings.items()
    }
