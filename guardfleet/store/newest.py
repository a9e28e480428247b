"""A job's verdicts with those of its retries: each text once, with the newest that was said of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from guardfleet.domain.decision import Decision
from guardfleet.domain.verdict import Severity
from guardfleet.store import models, verdicts
from guardfleet.store.jobs.views import JobView
from guardfleet.store.policy import decisions
from guardfleet.store.postgres.database import Connection, Database
from guardfleet.verdicts.encoding import is_stored_at_least
from guardfleet.verdicts.page import Page

OF_RETRY = """unnest(%(seqs)s::int4[]) s (seq)
            left join retried o on o.job_id = %(job)s and o.seq = s.seq
            cross join lateral (
              select x.*, t.job_id as retry_id from retried t join job r on r.id = t.job_id
              join verdict x on x.job_id = t.job_id and x.day = r.day and x.seq = t.seq
              where t.of_job_id = %(first)s and t.of_seq = coalesce(o.of_seq, s.seq) and t.job_id > %(job)s
              order by t.job_id desc limit 1) v"""
NEWEST = f"""select s.seq as ord, {verdicts.COLUMNS} from {OF_RETRY}"""
WHERE_NEWEST = f"""select s.seq, v.retry_id, v.day, v.seq as its_seq from {OF_RETRY} order by v.retry_id"""


def with_retries(db: Database, job: JobView, *, min_severity: int = 0) -> Iterator[Page]:
    """Yield all verdicts in input order, of each failed text the newest that a retry gave, at the text's place in this job.

    A text has failed if its verdict or one of its detections is an error; verdict, detections and decision are then the retry's.
    The severity is looked at again, since an error counts above every severity and its newest verdict may not.
    """
    for page in verdicts.in_order(db, job, min_severity=min_severity if job.detectors is None else 0):
        errors = [row.seq for row in page.rows if is_stored_at_least(row, Severity.ERROR) or _is_undetected(page, row.seq)]
        whole = _with_newest(db, job, page, errors) if errors else page
        pairs = zip(whole.rows, whole.decided(), strict=True)
        kept = [pair for pair in pairs if not min_severity or is_stored_at_least(pair[0], min_severity)]
        if len(kept) == len(whole.rows):
            yield whole
        elif kept:
            decisions_of = None if whole.decisions is None else [one for _, one in kept]
            yield replace(whole, rows=[row for row, _ in kept], decisions=decisions_of)


def _is_undetected(page: Page, seq: int) -> bool:
    said = {} if page.detections is None else page.detections.get(seq, {})
    return any(one["error"] is not None for one in said.values())


def _with_newest(db: Database, job: JobView, page: Page, errors: Sequence[int]) -> Page:
    """Return the page with what the newest retry said of these texts, wherever one did."""
    values = {"job": job.id, "first": job.origin_id, "seqs": errors}
    with db.session() as connection:
        found = verdicts.read(connection, NEWEST, values)
        by_id = models.known(db, connection, verdicts.model_ids(found))
        decided, detected = _said(db, connection, job, values)
    newest = {row.ord: row._replace(ord=0, seq=row.ord) for row in found}
    decisions_of = [decided.get(row.seq) if row.seq in newest else one for row, one in zip(page.rows, page.decided(), strict=True)]
    return replace(
        page,
        rows=[newest.get(row.seq, row) for row in page.rows],
        models=by_id,
        decisions=decisions_of if page.decisions is not None or decided else None,
        detections=None if page.detections is None else {**page.detections, **detected},
    )


def _said(
    db: Database, connection: Connection, job: JobView, values: Mapping[str, Any]
) -> tuple[dict[int, Decision | None], dict[int, Mapping[str, Mapping[str, Any]]]]:
    """Return by the text's place in this job what was decided of its newest verdict, which is a retry's, and what was detected."""
    decided: dict[int, Decision | None] = {}
    detected: dict[int, Mapping[str, Mapping[str, Any]]] = {}
    for (retry_id, day), places in groupby(
        connection.execute(WHERE_NEWEST, values).fetchall(), key=lambda row: (row.retry_id, row.day)
    ):
        of_retry = list(places)
        seqs = [row.its_seq for row in of_retry]
        found = decisions.of_texts(db, connection, retry_id, seqs)
        if found is not None:
            decided |= {row.seq: one for row, one in zip(of_retry, found, strict=True)}
        if job.detectors is not None:
            said = verdicts.detections_in(db, connection, retry_id, day, seqs)
            detected |= {row.seq: said.get(row.its_seq, {}) for row in of_retry}
    return decided, detected
