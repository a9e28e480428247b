"""`submit`, `status`, `watch`, `cancel`, `pause`, `resume`: jobs of a running fleet, or of the embedded database."""

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from guardfleet.cli import DONE, FAILED_ROWS, INTERRUPTED, terminal
from guardfleet.cli import progress as show
from guardfleet.cli.fingerprint import fingerprint
from guardfleet.cli.input_options import asked_of, opened
from guardfleet.domain import ids
from guardfleet.domain.options import JobOptions
from guardfleet.domain.states import JobState
from guardfleet.embedded.stack import database_of, running_settings
from guardfleet.errors import ConfigurationError
from guardfleet.jobs import diagnosis
from guardfleet.jobs.submit import pinned
from guardfleet.settings import Settings
from guardfleet.store.jobs import control, figures, views
from guardfleet.store.jobs.views import JobView
from guardfleet.store.postgres.database import Database

if TYPE_CHECKING:
    from guardfleet.client.job import SubmitOptions
    from producer.readers import Reading


def submit(
    settings: Settings, sources: Sequence[str], options: JobOptions, how: "SubmitOptions", reading: "Reading", *, wait: bool
) -> int:
    """Submit a file; print the job's id on stdout. An interrupted submit of the same is resumed."""
    from guardfleet.client.direct import DirectClient
    from producer.submit import submit_input

    inputs = opened(sources, reading, max_text_bytes=settings.intake.max_text_bytes, allow_empty=how.allow_empty)

    def identified(options: JobOptions) -> "SubmitOptions":
        asked = options.under_old_names() | {"callback_secret": how.callback_secret} | asked_of(reading)  # docs/resume.md
        return replace(how, fingerprint=fingerprint(inputs.paths, "submit", asked))

    if settings.api_url is not None:
        from guardfleet.cli.commands import remote

        return remote.submit(settings, inputs, options, identified(options), wait=wait)
    client = DirectClient.connect(of_fleet(settings), application="guardfleet-submit")
    options = pinned(client.db, client.tenant_id, options)  # another version is another submit
    how = identified(options)
    submission = submit_input(client, inputs, options, how)
    print(submission.job.label, flush=True)
    show.submitted(submission)
    if not wait:
        return FAILED_ROWS if submission.job.rejected else DONE
    return follow(client.db, submission.job, price=settings.price_per_device_hour)


def of_fleet(settings: Settings) -> Settings:
    """Return the settings of the fleet that will work on a job. Raises ConfigurationError if none is running."""
    found = running_settings(settings) if settings.is_embedded else settings
    if found is None:
        raise ConfigurationError(
            "no fleet is running: start one with `guardfleet up`, set GUARDFLEET_DATABASE_URL, or use `guardfleet scan`."
        )
    return found


def watch(settings: Settings, label: str) -> int:
    """Show a job's progress until it has ended; Ctrl-C only stops watching."""
    if settings.api_url is not None:
        from guardfleet.cli.commands import remote

        return remote.watch(settings, label)
    with database_of(settings) as complete, closing(_watching(complete)) as db:
        job = views.get(db, ids.JOB.parse(label))
        if not job.state.is_final and settings.is_embedded and running_settings(settings) is None:
            raise ConfigurationError(f"nobody works on {job.label}: start `guardfleet up`, or the same `scan` again.")
        return follow(db, job, price=settings.price_per_device_hour)


def _watching(settings: Settings) -> Database:
    return Database(settings.required("database_url"), application="guardfleet-watch", pool_size=1)


def follow(db: Database, job: JobView, *, price: float | None = None) -> int:
    """Show a job's progress until it has ended, then its summary."""
    try:
        job = show.follow(lambda: views.get(db, job.public_id))
    except KeyboardInterrupt:
        terminal.say(f"\nThe job goes on. To watch it again: guardfleet watch {job.label}")
        return INTERRUPTED
    show.summary(job, figures.summary(db, job), seconds=_seconds(job), price=price)
    return FAILED_ROWS if job.error or job.rejected or job.state is not JobState.COMPLETED else DONE


def status(settings: Settings, label: str, *, as_json: bool) -> int:
    """Print a job's state and progress."""
    with database_of(settings) as complete:
        db = Database(complete.required("database_url"), pool_size=1)
        try:
            job = views.get(db, ids.JOB.parse(label))
            wrong = diagnosis.explain(db, job, complete)
            if as_json:
                print(json.dumps(_as_dict(job, wrong, settings.price_per_device_hour)))
            else:
                seconds = _seconds(job) if job.state.is_final else None
                show.summary(
                    job, figures.summary(db, job), seconds=seconds, price=settings.price_per_device_hour, to=terminal.answers
                )
                if not job.state.is_final:
                    show.progress(job, wrong)
        finally:
            db.close()
    return DONE


def cancel(settings: Settings, label: str) -> int:
    """Cancel a job."""
    with database_of(settings) as complete:
        db = Database(complete.required("database_url"), pool_size=1)
        try:
            job = views.get(db, ids.JOB.parse(label))
            control.cancel(db, job.id)
            after = views.get(db, job.public_id)
        finally:
            db.close()
    terminal.say(f"{after.label}: {after.state.label}, {after.done:,} of {after.total:,} verdicts are kept")
    return DONE


def pause(settings: Settings, label: str) -> int:
    """Pause a job."""
    return _change(settings, label, control.pause)


def resume(settings: Settings, label: str) -> int:
    """Resume a paused job."""
    return _change(settings, label, control.resume)


def prioritise(settings: Settings, label: str, priority: int) -> int:
    """Change a job's priority."""
    return _change(settings, label, lambda db, job_id: control.prioritise(db, job_id, priority))


def _change(settings: Settings, label: str, change: Callable[[Database, int], None]) -> int:
    with database_of(settings) as complete:
        db = Database(complete.required("database_url"), pool_size=1)
        try:
            job = views.get(db, ids.JOB.parse(label))
            change(db, job.id)
            after = views.get(db, job.public_id)
            terminal.say(f"{after.label}: {'paused' if after.is_paused else after.state.label}, priority {after.priority}")
            show.progress(after, None, to=terminal.notes)
        finally:
            db.close()
    return DONE


def _seconds(job: JobView) -> float | None:
    if job.sealed_at is None or job.finished_at is None:
        return None
    return max(0.001, (job.finished_at - job.sealed_at).total_seconds())


def _as_dict(job: JobView, wrong: str | None, price: float | None) -> dict[str, Any]:
    names = ("total", "rejected", "done", "safe", "controversial", "unsafe", "error", "saved", "model", "models", "is_demo",
             "reason", "priority", "first_model", "second_model", "sure", "sample", "long_texts", "escalated", "sampled",
             "agreed", "actions", "detectors", "detected")  # fmt: skip
    eta_s = None if job.eta_s is None else round(job.eta_s, 1)
    progress: dict[str, Any] = {
        "texts_per_s": round(job.texts_per_s, 1),
        "eta_s": eta_s,
        "paused": job.is_paused,
        "standstill": wrong,
    }
    progress |= {"device_seconds": round(job.device_s, 3), "cost": job.cost(price)}
    progress |= {
        "retry_of": ids.JOB.of(job.retry_of) if job.retry_of else None,
        "retries": [ids.JOB.of(one) for one in job.retries],
    }
    progress["detector_cascades"] = job.cascades or None
    return {"job": job.label, "state": job.state.label, **{name: getattr(job, name) for name in names}, **progress}
