"""The producer's client: an iterable of texts becomes a job."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from os import PathLike
from typing import Any, TypeVar

from guardfleet.domain.options import DEFAULT_PLAN, Plan
from guardfleet.domain.states import JobState
from guardfleet.errors import GuardfleetError, LineError, RejectedError
from guardfleet.jobs.intake import Intake, callback_secret
from guardfleet.rows.columns import Columns
from guardfleet.rows.payload import PayloadRow
from guardfleet.rows.row import row_of
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import installation, migrate, pooler, verdicts
from guardfleet.store.database import Database
from guardfleet.store.jobs import intake as stored_intake
from guardfleet.store.jobs import views
from guardfleet.store.jobs.control import check_priority
from guardfleet.store.jobs.intake import NewJob
from guardfleet.store.jobs.views import DEFAULT_TENANT, JobView, parse_label
from producer.readers import AS_FOUND, Numbered, Reading
from producer.sources import Inputs

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a submit: the job, the first refused lines, and the callback's secret where one was made."""

    job: JobView
    rejected: list[LineError]
    callback_secret: str | None = None
    resumed_after: int = 0  # input lines that an earlier submit had brought
    is_new: bool = True  # not found as it was submitted before
    warnings: list[str] = field(default_factory=list)  # rows to look at, although nothing is wrong with them


@dataclass(frozen=True)
class Options:
    """How a job is to be run.

    `fingerprint`: of the input and what is asked of it; a submit with it that was cut off is gone on with by the next. `once`: one
    that went through is found again, so that a caller who did not hear of it can ask again.
    `priority`: -100 to 100, among the tenant's own jobs. `reuse`: whether verdicts of other jobs may serve this one.
    `reading`: how files are read, of which `columns` count for objects too; `allow_empty`: whether one without a row is a job all
    the same. `brings_workers`: the caller starts workers with the models that the plan names, which need not have served yet.
    `on_progress` is told the texts committed so far.
    """

    name: str = "texts"
    interactive: bool = False
    strict: bool = False
    fingerprint: bytes | None = None
    metadata: dict[str, Any] | None = None
    callback_url: str | None = None
    callback_secret: str | None = None
    plan: Plan = DEFAULT_PLAN
    priority: int = 0
    reuse: bool = True
    once: bool = False
    reading: Reading = AS_FOUND
    allow_empty: bool = False
    brings_workers: bool = False
    on_progress: Callable[[int], None] = lambda n: None


@dataclass(frozen=True)
class Producer:
    """Writes jobs straight to PostgreSQL; the dispatcher publishes them. Thread-safe."""

    db: Database
    keyring: Keyring
    settings: Settings
    tenant_id: int = DEFAULT_TENANT

    @classmethod
    def connect(cls, settings: Settings) -> "Producer":
        """A producer for configured services; raises ConfigurationError where schema, pooler or secret key will not do."""
        db = Database(settings.required("database_url"), application="guardfleet-producer")
        keyring = Keyring.of(settings)
        try:
            migrate.require_head(db)
            pooler.require_prepared(db)
            installation.require_key(db, keyring)
        except GuardfleetError:
            db.close()
            raise
        return cls(db, keyring, settings)

    def submit(self, texts: Iterable[str | Mapping[str, Any]], options: Options = Options()) -> Submission:
        """Take texts in, in order: strings, or objects with `text` or `messages`, which may have an `id`.

        All other members are metadata. Unusable rows are refused one by one and the rest goes on; with `strict` the first of them
        raises RejectedError and nothing of the job runs. Work starts while texts still come in; the job completes only once all are
        committed, when this returns.
        """
        if isinstance(texts, str | bytes | Mapping):
            raise RejectedError("texts are many: give a list of strings or rows, of one too.")
        return self.submit_rows(self._numbered(texts, options.reading.columns), options)

    def submit_file(self, path: str | PathLike[str] | Sequence[str], options: Options = Options()) -> Submission:
        """Take a file in, or files, folders and patterns as one job (`-`: standard input); docs/input.md says what is read."""
        sources = os.fspath(path) if isinstance(path, PathLike) else path
        return self.submit_input(Inputs(sources, options.reading, max_text_bytes=self.settings.max_text_bytes), options)

    def submit_input(self, inputs: Inputs, options: Options) -> Submission:
        """Take an input in that was looked at already. Raises RejectedError where nothing is in it, before a job exists."""
        try:
            submission = self.submit_rows(not_empty(inputs.rows(), options, inputs.name), options)
        finally:
            inputs.close()
        return replace(submission, warnings=inputs.warnings)

    def submit_rows(self, rows: Iterable[Numbered], options: Options) -> Submission:
        """Take rows in that a reader has numbered and checked."""
        if options.once and options.fingerprint is not None:
            earlier = views.find(self.db, options.fingerprint, tenant_id=self.tenant_id)
            if earlier is not None and earlier.state is not JobState.INGESTING:
                return Submission(earlier, [], is_new=False)
        secret = callback_secret(options.callback_url, options.callback_secret, self.settings.webhook_allow_networks)
        new = NewJob(
            options.name,
            self.tenant_id,
            int(options.interactive),
            options.fingerprint,
            options.metadata,
            options.callback_url,
            secret,
            options.plan,
            check_priority(options.priority),
            options.strict,
            options.reuse,
            brings_workers=options.brings_workers,
        )
        with Intake(self.db, self.keyring, self.settings, new, on_progress=options.on_progress) as intake:
            if intake.resumed_after:
                secret = stored_intake.stored_callback_secret(self.db, self.keyring, intake.job)
            intake.add_all(rows)
            job = intake.seal()
        return Submission(job, intake.first_rejected, None if options.callback_secret else secret, intake.resumed_after)

    def status(self, label: str) -> JobView:
        """Where a job is; raises NotFoundError."""
        return views.get(self.db, parse_label(label), tenant_id=self.tenant_id)

    def results(self, label: str) -> Iterator[dict[str, Any]]:
        """The verdicts there are, in input order; flat in memory."""
        return verdicts.export(self.db, self.status(label))

    def _numbered(self, texts: Iterable[str | Mapping[str, Any]], columns: Columns) -> Iterator[Numbered]:
        for number, value in enumerate(texts, 1):
            row: PayloadRow | LineError
            try:
                row = row_of(number, columns.placed(value), max_text_bytes=self.settings.max_text_bytes)
            except LineError as error:
                row = error.kept()
            yield number, row


def not_empty(rows: Iterator[T], options: Options, name: str) -> Iterator[T]:
    """The same rows, the first of them looked for now: RejectedError where there is none, unless that is allowed."""
    for first in rows:
        return chain((first,), rows)
    if not options.allow_empty:
        raise RejectedError(f"the input has no rows: {name} (--allow-empty takes it all the same).")
    return iter(())
