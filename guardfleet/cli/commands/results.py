"""`results`: write a job's verdicts, or its refused input lines, to a file."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from guardfleet.cli import DONE, terminal
from guardfleet.domain import ids
from guardfleet.domain.verdict import Severity
from guardfleet.embedded.stack import database_of
from guardfleet.errors import RejectedError
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import audit, detections, newest, verdicts
from guardfleet.store.jobs import texts, unprocessed, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.verdicts import export
from guardfleet.verdicts.export import Layout
from guardfleet.verdicts.filters import Labelled, actions_of
from guardfleet.verdicts.page import of_actions, of_labels

MAX_METADATA_COLUMNS = 500


def results(
    settings: Settings,
    label: str,
    *,
    out: str,
    fmt: str | None,
    min_severity: str,
    layout: Layout,
    is_flat: bool,
    with_retries: bool = False,
    actions: Sequence[str] | None = None,
    labelled: Labelled | None = None,
) -> int:
    """Write a job's verdicts; with `is_flat`, a column for each member of the metadata."""
    severities = {severity.label: int(severity) for severity in Severity}
    if min_severity not in severities:
        raise RejectedError(f"min-severity {min_severity!r} is unknown; use one of {', '.join(severities)}.")
    wanted = actions_of(actions) if actions else None
    chosen = export.ready(out, fmt)
    if is_flat and chosen == "jsonl":
        raise RejectedError("--flat-metadata is for CSV and Parquet: in JSONL the metadata is an object.")
    with database_of(settings) as complete:
        db = Database(complete.required("database_url"), pool_size=1)
        try:
            job = views.get(db, ids.JOB.parse(label))
            if is_flat:
                layout = flattened(db, job, layout)
            read = newest.with_retries if with_retries else verdicts.in_order
            labels = detections.resolved(db, job.detectors, labelled)
            pages = of_labels(of_actions(read(db, job, min_severity=severities[min_severity]), wanted), labels)
            if layout.with_text:
                texts.require_kept(job)
                pages = texts.beside(db, Keyring.of(complete), job, pages)
            told: dict[str, Any] = {"format": chosen, "min_severity": min_severity, "with_text": layout.with_text}
            told |= {} if labels is None else asdict(labels)
            audit.note(db, job.tenant_id, "job.export", job.label, what="verdicts", **told, actions=wanted)
            n = export.write(pages, out, chosen, layout)
        finally:
            db.close()
    if out != "-":
        terminal.say(f"{n:,} verdicts are in ", (str(out), "bold"))
    return DONE


def refused(settings: Settings, label: str, *, out: str) -> int:
    """Write a job's refused input lines, as JSONL."""
    if export.ready(out) != "jsonl":
        raise RejectedError("refused lines are written as JSONL.")
    with database_of(settings) as complete:
        db = Database(complete.required("database_url"), pool_size=1)
        try:
            job = views.get(db, ids.JOB.parse(label))
            audit.note(db, job.tenant_id, "job.export", job.label, what="refused", format="jsonl")
            n = export.write_jsonl(unprocessed.refused(db, job), out)
        finally:
            db.close()
    if out != "-":
        terminal.say(f"{n:,} refused lines are in ", (str(out), "bold"))
    return DONE


def flattened(db: Database, job: JobView, layout: Layout) -> Layout:
    """Return the layout with a column for each member of the job's metadata. Raises RejectedError if there are too many."""
    keys = verdicts.metadata_keys(db, job, limit=MAX_METADATA_COLUMNS + 1)
    if len(keys) > MAX_METADATA_COLUMNS:
        raise RejectedError(f"the metadata has more than {MAX_METADATA_COLUMNS} different members: leave out --flat-metadata.")
    return Layout(layout.with_text, tuple(keys), layout.is_spreadsheet_safe)
