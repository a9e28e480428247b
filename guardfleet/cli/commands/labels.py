"""`guardfleet labels`: take labels in from a file, write them to one, count them."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

from guardfleet.cli import DONE, FAILED_ROWS, terminal
from guardfleet.cli.tables import format_of, write_rows
from guardfleet.cli.tenants import job_of, tenant_of
from guardfleet.domain.labels import Source
from guardfleet.domain.verdict import Severity
from guardfleet.errors import LineError, RejectedError
from guardfleet.jobs import labelling
from guardfleet.jobs.labelling import SOURCES, UNLABELLED, Asked, Defaults, Refused
from guardfleet.rows.columns import Columns
from guardfleet.settings import Settings
from guardfleet.store import audit
from guardfleet.store.labels import labels
from guardfleet.store.postgres.database import Database
from producer.readers import Reading
from producer.sources import Inputs

COLUMNS = Columns.of("label", None, None)  # the readers' `text` is the label here, and everything else metadata
SHOWN = 20  # refused lines
PAGE = 1000
FIELDS = (
    "label_id", "batch_id", "seq", "source", "author", "label", "categories", "sample_id", "inclusion_probability", "created_at",
)  # fmt: skip


def take_in(settings: Settings, file: str, *, source: str, author: str, job: str | None, tenant: str, as_json: bool) -> int:
    """Store the labels of a file, and print what became of its lines."""
    if source not in SOURCES:
        raise RejectedError(f"--source {source!r} is unknown; use one of {', '.join(SOURCES)}.")
    counts: Counter[str] = Counter(lines=0, new=0, known=0, unlabelled=0, refused=0)
    inputs = Inputs([file], Reading(columns=COLUMNS), max_text_bytes=settings.intake.max_text_bytes)
    with closing(inputs), tenant_of(settings, tenant) as (db, tenant_id, _):
        if job is not None:
            job_of(db, tenant_id, job)
        found = _lines(inputs, Defaults(job, source, author))
        while lines := list(islice(found, labelling.AT_ONCE)):
            taken = labelling.store(db, tenant_id, [one for _, one in lines])
            wrong = [(lines[at][0], one) for at, one in taken.refused.items() if one is not UNLABELLED]
            for line, one in wrong if as_json else wrong[: max(0, SHOWN - counts["refused"])]:
                _tell(line, one, as_json=as_json)
            counts.update(lines=len(lines), new=taken.new, known=taken.known, refused=len(wrong))
            counts.update(unlabelled=len(taken.refused) - len(wrong))
    if as_json:
        print(json.dumps(counts))
    else:
        if counts["refused"] > SHOWN:
            terminal.say(f"and {counts['refused'] - SHOWN:,} more: --json prints them all")
        print(
            f"{counts['lines']:,} lines: {counts['new']:,} labels stored, {counts['known']:,} were there already, "
            f"{counts['unlabelled']:,} without a label, {counts['refused']:,} refused"
        )
    return FAILED_ROWS if counts["refused"] else DONE


def _tell(line: int, one: Refused, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"line": line, "code": one.code, "detail": one.detail}))
    else:
        terminal.say(f"line {line}: {one.detail}")


def _lines(inputs: Inputs, defaults: Defaults) -> Iterator[tuple[int, Asked | Refused]]:
    for _, line, value in inputs.values():
        if isinstance(value, LineError):
            yield line, Refused(value.code, value.detail)
        elif not isinstance(value, dict):
            yield line, Refused("not_a_row", "it is no object")
        else:
            others = value.get("metadata")
            row = others if isinstance(others, dict) else {}
            yield line, labelling.read({"row_id": value.get("id"), **row, "label": value.get("text")}, defaults)


def write(settings: Settings, out: str, *, job: str | None, tenant: str, spreadsheet_safe: bool) -> int:
    """Write the labels of a tenant, or of one job."""
    fmt = format_of(out)
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        of = None if job is None else job_of(db, tenant_id, job)
        about = {} if of is None else {"job": of.label}
        audit.note(db, tenant_id, "label.export", "labels", format=fmt, **about)
        n = write_rows(_stored(db, tenant_id, None if of is None else of.id), FIELDS, out, fmt, spreadsheet_safe=spreadsheet_safe)
    if out != "-":
        terminal.say(f"{n:,} labels are in ", (out, "bold"))
    return DONE


def _stored(db: Database, tenant_id: int, job_id: int | None) -> Iterable[dict[str, Any]]:
    after = 0
    while found := labels.page(db, tenant_id, job_id=job_id, after=after, limit=PAGE):
        for one in found:
            row = one.as_dict()
            yield {"label_id": row.pop("id"), **row}  # a column `id` is the caller's, for an import
        after = found[-1].id


def summary(settings: Settings, *, job: str | None, tenant: str, as_json: bool) -> int:
    """Print how many labels there are."""
    with tenant_of(settings, tenant) as (db, tenant_id, _):
        found = labels.summary(db, tenant_id, job_id=None if job is None else job_of(db, tenant_id, job).id)
    names = ("source", "label", "labels", "texts", "by_design")
    rows = [(Source(one.source).label, Severity(one.severity).label, *one[2:]) for one in found]
    if as_json:
        for row in rows:
            print(json.dumps(dict(zip(names, row, strict=True))))
        return DONE
    if not rows:
        terminal.say("no labels")
        return DONE
    cells = [[one if isinstance(one, str) else f"{one:,}" for one in row] for row in rows]
    titles = ("source", "label", "labels", "texts", "drawn by design")
    terminal.say(terminal.listed(titles, cells, to=terminal.answers, numbers=titles[2:]), to=terminal.answers)
    return DONE
