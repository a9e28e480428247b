"""`guardfleet sample`: draw texts of a job to be labelled, and write them."""

import json
from collections.abc import Iterator
from typing import Any

from guardfleet.cli import DONE, terminal
from guardfleet.cli.tables import format_of, write_rows
from guardfleet.cli.tenants import job_of, tenant_of
from guardfleet.jobs import sampling
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import audit
from guardfleet.store.jobs import texts
from guardfleet.store.jobs.views import JobView
from guardfleet.store.labels import samples
from guardfleet.store.labels.samples import Sample
from guardfleet.store.postgres.database import Database
from guardfleet.verdicts import export

# `label` and `categories` are for whoever labels; what the model says has names of its own.
FIELDS = (
    "sample_id", "batch_id", "seq", "id", "verdict", "verdict_categories", "p_safe", "p_controversial", "p_unsafe", "error",
    "action", "inclusion_probability", "stratum", "label", "categories",
)  # fmt: skip
TEXTS = ("text", "messages")


def draw(
    settings: Settings, label: str, *, n: int, by: str, slice_key: str | None, seed: int | None, out: str, with_texts: bool,
    tenant: str, spreadsheet_safe: bool,
) -> int:  # fmt: skip
    """Draw a sample, store it, and write its texts in random order, each with an empty label."""
    fmt = format_of(out)
    asked = [name.strip() for name in by.split(",") if name.strip()]
    plan = sampling.plan_of(n, asked, slice_key=slice_key, seed=seed)
    with tenant_of(settings, tenant) as (db, tenant_id, complete):
        job = job_of(db, tenant_id, label)
        if with_texts:
            texts.require_kept(job)
        sample = sampling.draw(db, job, plan, slice_key=slice_key)
        rows = _rows(db, sample, job)
        if with_texts:
            audit.note(db, tenant_id, "sample.export", sample.label, job=job.label, texts=sample.n)
            rows = _with_texts(db, Keyring.of(complete), sample, job, rows)
        written = write_rows(rows, (*FIELDS, *(TEXTS if with_texts else ())), out, fmt, spreadsheet_safe=spreadsheet_safe)
    drawn = f"{written:,} of {sample.design['population']:,} texts by {', '.join(plan.by)}, seed {plan.seed}"
    if out == "-":
        terminal.say(f"{sample.label}: {drawn}")
    else:
        terminal.say(f"{sample.label}: {drawn}, in ", (out, "bold"))
    return DONE


def _rows(db: Database, sample: Sample, job: JobView) -> Iterator[dict[str, Any]]:
    for page in samples.pages(db, sample):
        for row in sampling.rows(db, sample, job, page):
            said = row.pop("verdict")
            probabilities = said["probabilities"] or {}
            flat = {"verdict": said["severity"], "verdict_categories": said["categories"]}
            flat |= {f"p_{name}": probabilities.get(name) for name in ("safe", "controversial", "unsafe")}
            flat |= {"error": said["error"], "action": said["action"], "label": None, "categories": None, "id": row.pop("row_id")}
            both = row | flat
            yield {name: both[name] for name in FIELDS}


def _with_texts(
    db: Database, keyring: Keyring, sample: Sample, job: JobView, rows: Iterator[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    contents = sampling.contents(db, keyring, sample, job)
    for row in rows:
        content = contents.get(row["seq"])
        yield row | {
            "text": export.shown(content) if isinstance(content, str) else None,
            "messages": json.loads(export.shown(json.dumps(content, ensure_ascii=False))) if isinstance(content, list) else None,
        }
