"""The direct client: writes texts straight to PostgreSQL, from where the dispatcher publishes them."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Self

import orjson

from guardfleet.client.job import DEFAULTS, PLAIN, Job, Numbered, RowSource, SubmitOptions, listed, many, not_empty
from guardfleet.client.labels import RANDOM, LabelReport, Sample
from guardfleet.client.verdict import Detection, Verdict
from guardfleet.domain import ids
from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.domain.options import JobOptions
from guardfleet.domain.states import BATCH_STATUS, JobState
from guardfleet.errors import GuardfleetError, LineError, RetryableError
from guardfleet.jobs import labelling, retry, review, sampling, submit
from guardfleet.jobs.intake import Intake
from guardfleet.jobs.labelling import Defaults
from guardfleet.rows.columns import Columns
from guardfleet.rows.payload import PayloadRow
from guardfleet.rows.row import row_of
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import audit, installation, migrate, verdicts
from guardfleet.store.jobs import control, interactive, unprocessed, views
from guardfleet.store.jobs.creation import NewJob
from guardfleet.store.jobs.views import JobView
from guardfleet.store.labels import samples
from guardfleet.store.postgres import pooler
from guardfleet.store.postgres.database import Database
from guardfleet.verdicts.filters import Filter, Labelled
from guardfleet.verdicts.page import Cursor, Page

LOOK_S = 0.1  # between polls for a verdict that somebody waits for
PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission(Job):
    """A job that was just submitted, with its row; `rejected` are the first refused lines."""

    job: JobView
    rejected: list[LineError] = field(default_factory=list)
    resumed_after: int = 0  # input lines that an earlier submit committed
    is_new: bool = True  # False: the same submit was made before, and its job found


@dataclass(frozen=True)
class DirectClient:
    """A client with the fleet's database. A context manager; thread-safe."""

    db: Database
    keyring: Keyring
    settings: Settings
    tenant_id: int = DEFAULT_TENANT

    @classmethod
    def connect(cls, settings: Settings, *, application: str = "guardfleet-client") -> Self:
        """Connect to configured services. Raises ConfigurationError if schema, pooler or secret key do not fit.

        `application` names the connections to PostgreSQL.
        """
        db = Database(settings.required("database_url"), application=application)
        keyring = Keyring.of(settings)
        try:
            migrate.require_head(db)
            pooler.require_prepared(db)
            installation.require_key(db, keyring)
        except GuardfleetError:
            db.close()
            raise
        return cls(db, keyring, settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self.db.close()

    def submit(
        self, texts: Iterable[str | Mapping[str, Any]], options: JobOptions = DEFAULTS, how: SubmitOptions = PLAIN
    ) -> Submission:
        """Submit texts, in order: strings, or objects with `text` or `messages`, and optionally an `id`.

        All other members are metadata. Unusable rows are refused one by one and the rest goes on; with `all_or_nothing` the first
        of them raises RejectedError and nothing of the job runs. Work starts while texts still come in; the job can complete once
        all are committed, which is when this returns.
        """
        return self._submit(self._numbered(many(texts), how.columns), options, how)

    def submit_rows(self, source: RowSource, options: JobOptions = DEFAULTS, how: SubmitOptions = PLAIN) -> Submission:
        """Submit rows that a reader has numbered and checked. Raises RejectedError if there are none, before a job exists."""
        return self._submit(not_empty(source.rows(), source.name, allow_empty=how.allow_empty), options, how)

    def _submit(self, rows: Iterable[Numbered], options: JobOptions, how: SubmitOptions) -> Submission:
        if how.once and how.fingerprint is not None:
            earlier = views.find(self.db, how.fingerprint, tenant_id=self.tenant_id)
            if earlier is not None and earlier.state is not JobState.INGESTING:
                return self._told(earlier, is_new=False)
        new = NewJob(
            options,
            self.tenant_id,
            fingerprint=how.fingerprint,
            callback_secret=how.callback_secret,
            brings_workers=how.brings_workers,
        )
        with Intake(self.db, self.keyring, self.settings, new, on_progress=how.on_progress) as intake:
            secret = None if how.callback_secret else intake.callback_secret
            intake.add_all(rows)
            job = intake.seal()
        return self._told(job, callback_secret=secret, rejected=intake.first_rejected, resumed_after=intake.resumed_after)

    def status(self, job_id: str) -> Job:
        """Return a job's status. Raises NotFoundError."""
        return self._told(self._view(job_id))

    def results(
        self,
        job_id: str,
        *,
        severity: Sequence[str] | None = None,
        category: str | None = None,
        status: str | None = None,
        since: float | None = None,
        action: Sequence[str] | None = None,
        detector: str | None = None,
        label: Sequence[str] | None = None,
    ) -> Iterator[Verdict]:
        """Yield verdicts as they come, each once, until the job has ended: all, or those of a filter. Needs constant memory."""
        wanted = Filter.of(listed(severity), category, status, since, listed(action), Labelled.of(detector, listed(label)))
        at, job = Cursor(), self._view(job_id)
        audit.note(self.db, job.tenant_id, "job.export", job.label, what="verdicts")
        while True:
            view = self._view(job_id)
            page = verdicts.page(self.db, view, at, limit=PAGE, wanted=wanted)
            yield from map(orjson.loads, page.json_objects())
            at = page.reached
            if page.has_more:
                continue
            if view.state.is_final:
                return
            time.sleep(LOOK_S)

    def refused(self, job_id: str, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield refused input lines, in order: `line`, `code`, `detail`, `row_id`."""
        job = self._view(job_id)
        audit.note(self.db, job.tenant_id, "job.export", job.label, what="refused")
        return unprocessed.refused(self.db, job, limit=limit)

    def jobs(self, *, after: str | None = None, limit: int = 20) -> list[Job]:
        """Return a page of the tenant's jobs, newest first; `after` is the last id of the previous page."""
        before = None if after is None else ids.JOB.parse(after)
        return [self._told(job) for job in views.page(self.db, tenant_id=self.tenant_id, after=before, limit=limit)]

    def cancel(self, job_id: str) -> Job:
        """Cancel a job; existing verdicts are kept."""
        return self._change(job_id, control.cancel)

    def retry(self, job_id: str, *, error: Sequence[str] | None = None) -> Submission:
        """Judge the failed texts of an ended job again, or those with these error codes, as a new job (docs/retry.md).

        While that job has not ended, the same call returns it. Raises RejectedError if there is nothing to judge again.
        """
        codes = [error] if isinstance(error, str) else error or ()
        found = retry.judge_again(self.db, self.keyring, self.settings, self._view(job_id), codes)
        return self._told(found.job, is_new=found.is_new)

    def pause(self, job_id: str) -> Job:
        """Pause a job."""
        return self._change(job_id, control.pause)

    def resume(self, job_id: str) -> Job:
        """Resume a paused job."""
        return self._change(job_id, control.resume)

    def label(self, given: Iterable[Mapping[str, Any]]) -> LabelReport:
        """Store what people say of texts (docs/labels.md); sent again, none is stored twice."""
        report, rows = LabelReport(), iter(given)
        while some := list(islice(rows, PAGE)):
            asked = [labelling.read(one, Defaults(source="reviewer")) for one in some]
            taken = labelling.store(self.db, self.tenant_id, asked)
            refused = [{"index": at, "code": one.code, "detail": one.detail} for at, one in taken.refused.items()]
            report.add(taken.new, taken.known, refused)
        return report

    def sample(
        self, job_id: str, *, n: int = 500, by: Sequence[str] = RANDOM, slice_key: str | None = None, seed: int | None = None
    ) -> Sample:
        """Draw texts of an ended job to be labelled, with known probabilities."""
        job, plan = self._view(job_id), sampling.plan_of(n, [by] if isinstance(by, str) else by, slice_key=slice_key, seed=seed)
        made = sampling.draw(self.db, job, plan, slice_key=slice_key)
        pages = samples.pages(self.db, made)
        return Sample(made.as_dict(), [row for page in pages for row in sampling.rows(self.db, made, job, page)])

    def reviews(self, job_id: str | None = None, *, after: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Return a page of the texts that wait for a person, oldest first; `after` is the last id of the previous page."""
        of = None if job_id is None else self._view(job_id).id
        return review.page(self.db, self.tenant_id, job_id=of, after=after, limit=limit)

    def moderate(self, value: str | Mapping[str, Any]) -> Verdict:
        """Judge a text, or `{"messages": [...]}`, while the caller waits. Raises RetryableError if no worker answers."""
        page = self._answered([{"text": value} if isinstance(value, str) else dict(value)])
        verdict: Verdict = orjson.loads(next(page.json_objects()))
        return verdict

    def detect(self, texts: str | Sequence[str], detectors: Sequence[str]) -> list[Mapping[str, Detection]]:
        """Ask detectors about a text, or several, while the caller waits; one result each, by the detector's name."""
        names = JobOptions.of(detectors=list(detectors)).plan.detectors
        page = self._answered([{"text": text} for text in ([texts] if isinstance(texts, str) else texts)], names)
        said: Any = page.detections or {}
        return [said.get(row.seq, {}) for row in page.rows]

    def _answered(self, values: Sequence[Mapping[str, Any]], detectors: Sequence[str] | None = None) -> Page:
        """Return the verdicts of a few rows once they are there. Raises RetryableError if no worker answers."""
        most = self.settings.intake.max_text_bytes
        rows = [row_of(number, value, max_text_bytes=most) for number, value in enumerate(values, 1)]
        (job_id,) = interactive.reserve(self.db, 1)
        options = interactive.options_of(detectors=detectors)
        job = submit.judge_now(self.db, self.keyring, job_id, rows, options, tenant_id=self.tenant_id)
        interactive.forget_message(self.db, job.id)  # the dispatcher publishes it
        deadline = time.monotonic() + self.settings.api.moderation_timeout_s
        while (page := interactive.found(self.db, job)) is None:
            if time.monotonic() > deadline:
                control.cancel(self.db, job.id)
                raise RetryableError(f"no verdict in {self.settings.api.moderation_timeout_s:g} s: is a worker running?")
            time.sleep(LOOK_S)
        return page

    def _view(self, job_id: str) -> JobView:
        return views.get(self.db, ids.JOB.parse(job_id), tenant_id=self.tenant_id)

    def _change(self, job_id: str, change: Callable[[Database, int], None]) -> Job:
        change(self.db, self._view(job_id).id)
        return self.status(job_id)

    def _told(self, job: JobView, **more: Any) -> Submission:
        return Submission(
            id=job.label,
            status=BATCH_STATUS[job.state],
            total=job.request_counts["total"],
            done=job.request_counts["completed"],
            failed=job.request_counts["failed"],
            texts_per_s=job.texts_per_s,
            eta_s=job.eta_s,
            job=job,
            **more,
        )

    def _numbered(self, texts: Iterable[str | Mapping[str, Any]], columns: Columns) -> Iterator[Numbered]:
        for number, value in enumerate(texts, 1):
            row: PayloadRow | LineError
            try:
                row = row_of(number, columns.placed(value), max_text_bytes=self.settings.intake.max_text_bytes)
            except LineError as error:
                row = error.kept()
            yield number, row
