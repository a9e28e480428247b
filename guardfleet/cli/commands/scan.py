"""`guardfleet scan`: start the stack, take the file in, write the verdicts, stop the stack."""

import pathlib
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from guardfleet.cli import DONE, FAILED_ROWS, INTERRUPTED, detector_workers, progress, terminal
from guardfleet.cli.fingerprint import fingerprint
from guardfleet.cli.input_options import asked_of, opened
from guardfleet.cli.model_check import require_found
from guardfleet.domain.ids import DEFAULT_TENANT
from guardfleet.domain.options import JobOptions
from guardfleet.domain.states import JobState
from guardfleet.embedded.stack import Stack, running_settings
from guardfleet.jobs.submit import pinned
from guardfleet.security.encryption import Keyring
from guardfleet.settings import Settings
from guardfleet.store import audit, models, verdicts
from guardfleet.store.events import deliveries
from guardfleet.store.jobs import figures, unprocessed, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database
from guardfleet.verdicts import export, targets

if TYPE_CHECKING:
    from producer.readers import Reading

CALLBACK_PATIENCE_S = 10.0


@dataclass
class Scan:
    """One run of the command."""

    settings: Settings
    sources: list[str]
    out: str
    reading: "Reading"
    options: JobOptions = field(default_factory=JobOptions)
    again: bool = False
    allow_empty: bool = False
    callback_secret: str | None = field(default=None, repr=False)

    def run(self) -> int:
        """Run everything; return the exit status."""
        signal.signal(signal.SIGTERM, _interrupt)
        fmt = self._ready()
        most = self.settings.intake.max_text_bytes
        self._inputs = opened(self.sources, self.reading, max_text_bytes=most, allow_empty=self.allow_empty)
        fingerprint = self._fingerprint()
        running = running_settings(self.settings) if self.settings.is_embedded else None
        if running is None:
            require_found(self.settings, self.options)
        stack = Stack(running or self.settings, log_to_files=True)
        try:
            with terminal.busy("starting PostgreSQL and the broker" if stack.settings.is_embedded else "connecting"):
                self.settings = stack.start_servers()
            db = Database(self.settings.required("database_url"), application="guardfleet-scan")
            try:
                if (named := pinned(db, DEFAULT_TENANT, self.options)) is not self.options:  # another version is another scan
                    self.options, fingerprint = named, self._fingerprint()
                return self._scan(stack, db, fingerprint, fmt, has_fleet=running is not None)
            finally:
                db.close()
        finally:
            stack.stop()

    def _ready(self) -> str:
        """Return the output's format, after checking that it and the file of refused lines are writable and no inputs."""
        from producer.sources import expanded

        fmt, beside = export.ready(self.out), targets.rejected_beside(self.out)
        if beside:
            targets.require_writable(beside)
        targets.require_apart([self.out, *([beside] if beside else [])], expanded(self.sources)[0])
        return fmt

    def _scan(self, stack: Stack, db: Database, fingerprint: bytes | None, fmt: str, *, has_fleet: bool) -> int:
        job = self._earlier(db, fingerprint)
        started = time.monotonic()
        seconds: float | None = None
        if job is None or not job.state.is_final:
            if not has_fleet:
                stack.start_processes(*self._processes())
            elif job is not None:  # a new job is checked when it is made
                named = self._named()
                models.require_served(db, named.model, named.escalate_to)
                models.require_detectors(db, [*named.plan.detectors, *named.plan.second_entries])
            try:
                job = job or self._submit(db, fingerprint, brings_workers=not has_fleet)
                public_id, done_before = job.public_id, job.done
                waiting = "waiting for a worker" if has_fleet else "loading the model"
                job = progress.follow(lambda: views.get(db, public_id), broken=stack.broken, waiting=waiting)
            except KeyboardInterrupt:
                return self._interrupted(db, fingerprint)
            seconds = (time.monotonic() - started) * job.done / max(1, job.done - done_before)
            self._await_callback(db, job)
        return self._report(db, job, fmt, seconds, has_fleet=has_fleet)

    def _processes(self) -> list[tuple[str, list[str]]]:
        plan = self.options.plan
        out = [("dispatcher", ["dispatcher"])]
        if plan.asks_guard:
            out.append(("worker", ["worker"]))
        out += detector_workers.processes(self.settings, detector_workers.asked(plan))
        if self.options.escalate_to:
            out.append(("worker-second", ["worker", "--model", self.options.escalate_to, "--named-only"]))
        return [*out, ("webhooks", ["worker", "--webhooks"])] if self.options.callback_url else out

    def _named(self) -> JobOptions:
        """Return the options with their models under the names that verdicts use."""
        if self.options.escalate_to is None or self.settings.tuning.engine != "model":
            return self.options
        from worker.engine.model.model_files import name_of

        names = {"model": name_of(self.settings.engine.model), "escalate_to": name_of(self.options.escalate_to)}
        return self.options.model_copy(update=names)

    def _submit(self, db: Database, fingerprint: bytes | None, *, brings_workers: bool) -> JobView:
        from guardfleet.client.direct import DirectClient
        from guardfleet.client.job import SubmitOptions
        from producer.submit import submit_input

        client = DirectClient(db, Keyring.of(self.settings), self.settings)
        with terminal.busy(f"reading {self._inputs.name}") as change:
            how = SubmitOptions(
                callback_secret=self.callback_secret,
                allow_empty=self.allow_empty,
                fingerprint=fingerprint,
                brings_workers=brings_workers,
                on_progress=lambda n: change(f"reading {self._inputs.name}: {n:,} texts"),
            )
            options = self._named().model_copy(update={"name": self._inputs.name, "use_cache": not self.again})
            submission = submit_input(client, self._inputs, options, how)
        progress.submitted(submission)
        return submission.job

    def _earlier(self, db: Database, fingerprint: bytes | None) -> JobView | None:
        """Return the job of an earlier run of the same command, if it can be used."""
        job = views.find(db, fingerprint) if fingerprint else None
        if fingerprint and not self.again and (anew := self._fingerprint(again=True)):
            found = [one for one in (job, views.find(db, anew)) if one is not None and one.state is not JobState.INGESTING]
            job = max(found, key=lambda one: one.id, default=job)
        if job is None or (self.again and job.state.is_final):
            return None
        if job.state is JobState.INGESTING:  # its submit was interrupted, or still runs elsewhere: the intake finds out
            return None
        if job.state is JobState.COMPLETED:
            terminal.say(
                f"The same texts were judged by the same model on {job.created_at:%Y-%m-%d %H:%M} UTC ({job.label}): "
                "nothing to do. The verdicts come from the database; use --again to judge them again.",
            )
        else:
            terminal.say(f"Resuming {job.label}: {job.done:,} of {job.total:,} texts have their verdict.")
        return job

    def _interrupted(self, db: Database, fingerprint: bytes | None) -> int:
        job = views.find(db, fingerprint) if fingerprint else None
        kept = (
            f" {job.done:,} of {job.total:,} verdicts are kept."
            if job and job.state in (JobState.INGESTING, JobState.RUNNING)
            else ""
        )
        terminal.say(f"\nInterrupted.{kept} Run the same command again to {'resume' if kept else 'start over'}.")
        return INTERRUPTED

    def _await_callback(self, db: Database, job: JobView) -> None:
        """Give the webhook a moment, since the stack stops with us; what is not delivered now is at the next start."""
        deadline = time.monotonic() + CALLBACK_PATIENCE_S
        while self.options.callback_url and deliveries.unsent(db, job.id) and time.monotonic() < deadline:
            time.sleep(progress.POLL_S)

    def _report(self, db: Database, job: JobView, fmt: str, seconds: float | None, *, has_fleet: bool) -> int:
        audit.note(db, job.tenant_id, "job.export", job.label, what="verdicts", format=fmt)
        n = export.write(verdicts.in_order(db, job), self.out, fmt)
        progress.summary(
            job, figures.summary(db, job), seconds=seconds, with_start=not has_fleet, price=self.settings.price_per_device_hour
        )
        if self.out != "-":
            terminal.say(f"{n:,} verdicts are in ", (self.out, "bold"))
            if beside := targets.rejected_beside(self.out):
                if job.rejected:
                    export.write_jsonl(unprocessed.refused(db, job), beside)
                    terminal.say(f"{job.rejected:,} refused lines are in ", (beside, "bold"))
                else:  # left by an earlier run that wrote to the same file
                    pathlib.Path(beside).unlink(missing_ok=True)
        return FAILED_ROWS if job.error or job.failed_detections or job.rejected or job.state is not JobState.COMPLETED else DONE

    def _fingerprint(self, *, again: bool | None = None) -> bytes | None:
        """Return what makes two runs the same: the file's bytes and how they are judged. None for standard input."""
        settings, options = self.settings, self.options
        asked: dict[str, Any] = {
            **options.under_old_names(),
            "again": self.again if again is None else again,
            "engine": settings.tuning.engine,
            "model": settings.engine.model,
            "model_revision": settings.engine.revision,
            "coverage": settings.engine.long_texts,
            "window_tokens": settings.engine.window_tokens,
            "window_overlap": settings.tuning.window_overlap,
            "max_windows": settings.tuning.max_windows,
            "role_labels": settings.engine.role_labels,
        }
        if settings.tuning.engine == "model":
            from worker.engine.model.model_files import digest_of, folder_of

            of_detectors = [detector_workers.model_of(settings, name) for name in detector_workers.asked(options.plan)]
            asked |= {"detector_models": of_detectors} if of_detectors else {}
            models = (settings.engine.model, options.escalate_to, *of_detectors)
            folders = [folder_of(model) for model in models if model is not None]
            asked["digests"] = [digest_of(folder, settings.data_dir) if folder else None for folder in folders]
        return fingerprint(self._inputs.paths, "scan", asked | asked_of(self.reading))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
