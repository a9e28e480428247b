"""The producer's client: an iterable of texts becomes a job."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from guardfleet.errors import LineError
from guardfleet.intake import Intake, callback_secret
from guardfleet.plan import DEFAULT_PLAN, Plan
from guardfleet.rows import row_of
from guardfleet.sealing import Keyring, PayloadRow
from guardfleet.settings import Settings
from guardfleet.store import jobs, verdicts
from guardfleet.store.database import Database
from guardfleet.store.jobs import DEFAULT_TENANT, JobView, NewJob, parse_label
from producer.readers import Numbered, read


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a submit: the job, the first refused lines, and the callback's secret where one was made."""

    job: JobView
    rejected: list[LineError]
    callback_secret: str | None = None


@dataclass(frozen=True)
class Options:
    """How a job is to be run. `on_progress` is told the texts committed so far."""

    name: str = "texts"
    interactive: bool = False
    strict: bool = False
    fingerprint: bytes | None = None
    metadata: dict[str, Any] | None = None
    callback_url: str | None = None
    callback_secret: str | None = None
    plan: Plan = DEFAULT_PLAN
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
        """A producer for configured services; raises ConfigurationError."""
        return cls(
            Database(settings.required("database_url"), application="guardfleet-producer"),
            Keyring(settings.required("secret_key")),
            settings,
        )

    def submit(self, texts: Iterable[str | Mapping[str, Any]], options: Options = Options()) -> Submission:
        """Take texts in, in order: strings, or objects with `text` or `messages` and an optional `id` and `metadata`.

        Unusable rows are refused one by one and the rest goes on; with `strict` the first of them raises RejectedError and nothing
        of the job runs. Returns once everything is committed; an interrupted submit leaves no job that counts as whole.
        """
        return self.submit_rows(self._numbered(texts), options)

    def submit_file(self, path: str, options: Options = Options()) -> Submission:
        """Take a JSONL, CSV or Parquet file in (`-`: JSONL from standard input)."""
        return self.submit_rows(read(path, max_text_bytes=self.settings.max_text_bytes), options)

    def submit_rows(self, rows: Iterable[Numbered], options: Options) -> Submission:
        """Take rows in that a reader has numbered and checked."""
        secret = callback_secret(options.callback_url, options.callback_secret)
        new = NewJob(
            options.name,
            self.tenant_id,
            int(options.interactive),
            options.fingerprint,
            options.metadata,
            options.callback_url,
            secret,
            options.plan,
        )
        with Intake(self.db, self.keyring, self.settings, new, strict=options.strict, on_progress=options.on_progress) as intake:
            intake.add_all(rows)
            job = intake.seal()
        return Submission(job, intake.first_rejected, None if options.callback_secret else secret)

    def status(self, label: str) -> JobView:
        """Where a job is; raises NotFoundError."""
        return jobs.get(self.db, parse_label(label), tenant_id=self.tenant_id)

    def results(self, label: str) -> Iterator[dict[str, Any]]:
        """The verdicts there are, in input order; flat in memory."""
        return verdicts.export(self.db, self.status(label))

    def _numbered(self, texts: Iterable[str | Mapping[str, Any]]) -> Iterator[Numbered]:
        for number, value in enumerate(texts, 1):
            row: PayloadRow | LineError
            try:
                row = row_of(number, value, max_text_bytes=self.settings.max_text_bytes)
            except LineError as error:
                row = error
            yield number, row
