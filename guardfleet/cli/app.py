"""The commands and their options; the modules beside this one implement them."""

import os
from typing import Annotated, Any

import typer

from guardfleet import __version__
from guardfleet.cli import UNUSABLE, terminal
from guardfleet.cli.commands.administration import audit, db_app, keys_app
from guardfleet.cli.commands.bench import app as bench_app
from guardfleet.cli.commands.erasing_app import erase, erasures, hold_app
from guardfleet.cli.commands.evaluate_app import evaluate
from guardfleet.cli.commands.labels_app import labels_app, reviews, sample
from guardfleet.cli.commands.lists_app import lists_app
from guardfleet.cli.commands.models_app import models_app
from guardfleet.cli.commands.plan import plan
from guardfleet.cli.commands.policy_app import policy_app, redecide
from guardfleet.cli.commands.processes import api, dispatcher, worker
from guardfleet.cli.commands.prompt_policy_app import prompt_policy_app
from guardfleet.cli.commands.report import report
from guardfleet.cli.commands.retry import retry
from guardfleet.cli.doctor.examination import WITHIN_S
from guardfleet.cli.input_options import AllowEmpty, Sources, reading_of
from guardfleet.cli.options import Model, Secret, job_options, takes
from guardfleet.domain.options import JobOptions
from guardfleet.process import packages
from guardfleet.settings import load_settings, names

ASKED = JobOptions()
NOT_OF_SCANS = ("name", "interactive", "model", "priority", "use_cache", "completion_window", "metadata", "webhook_metadata")
WITHOUT_PACKAGES = ("doctor", "version")  # doctor reports it among other things
LOGGING = ("worker", "dispatcher", "api", "up", "evaluate")  # their logs name settings that are given under old names

app = typer.Typer(
    name="guardfleet",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    help="Moderate millions of texts with Qwen3Guard on your own machines: texts in, verdicts with their rationale out.",
)
app.add_typer(db_app, name="db")
app.add_typer(keys_app, name="keys")
app.add_typer(policy_app, name="policy")
app.add_typer(prompt_policy_app, name="prompt-policy")
app.add_typer(lists_app, name="lists")
app.add_typer(labels_app, name="labels")
app.add_typer(models_app, name="models")
app.add_typer(bench_app, name="bench")
app.add_typer(hold_app, name="hold")


@app.callback()
def guardfleet(
    context: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Run before every command."""
    if show_version:
        print(f"guardfleet {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(UNUSABLE)
    if context.invoked_subcommand not in WITHOUT_PACKAGES:
        packages.require_own()
    if context.invoked_subcommand not in LOGGING:
        for old, new in names.renamed(os.environ).items():
            terminal.say(f"{old} is the old name of {new}; the next version no longer reads it.")


JobLabel = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, job_...")]
Url = Annotated[str | None, typer.Option("--url", help="Use the API at this URL, with the key in GUARDFLEET_API_KEY.")]


@app.command()
@takes(options=job_options(*NOT_OF_SCANS), reading=reading_of)
def scan(
    sources: Sources,
    out: Annotated[str, typer.Option("-o", "--out", help="File for the verdicts: .jsonl, .csv or .parquet.")] = "verdicts.jsonl",
    model: Model = None,
    again: Annotated[bool, typer.Option("--again", help="Judge every text again, even if it has a verdict.")] = False,
    options: JobOptions = ASKED,
    callback_secret: Secret = None,
    reading: Any = None,
    allow_empty: AllowEmpty = False,
) -> int:
    """Submit, judge and export in one go; needs no services. Ctrl-C keeps finished work: run it again to resume."""
    from guardfleet.cli.commands.scan import Scan
    from guardfleet.telemetry import logs

    settings = load_settings(model=model).with_own_model()
    logs.configure(settings.but(log_level="error", log_format="console"), process="scan")
    options.plan.check()
    return Scan(
        settings, sources, out, reading, options, again=again, allow_empty=allow_empty, callback_secret=callback_secret
    ).run()


@app.command()
def up(model: Model = None) -> int:
    """Run the whole stack in the foreground: database, broker, dispatcher, workers, API."""
    from guardfleet.cli.commands.up import up as run

    return run(load_settings(model=model))


@app.command()
@takes(options=job_options(), reading=reading_of)
def submit(
    sources: Sources,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until the job has ended.")] = False,
    options: JobOptions = ASKED,
    callback_secret: Secret = None,
    once: Annotated[bool, typer.Option("--once", help="Return the job of an identical earlier submit, if any.")] = False,
    url: Url = None,
    reading: Any = None,
    allow_empty: AllowEmpty = False,
) -> int:
    """Submit a job to a running fleet. If it is interrupted, run it again: it resumes where it stopped."""
    from guardfleet.cli.commands import jobs
    from guardfleet.client.job import SubmitOptions

    options.plan.check()
    how = SubmitOptions(callback_secret=callback_secret, columns=reading.columns, allow_empty=allow_empty, once=once)
    return jobs.submit(load_settings(api_url=url), sources, options, how, reading, wait=wait)


@app.command()
def status(job: JobLabel, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> int:
    """Show a job's state and progress."""
    from guardfleet.cli.commands import jobs

    return jobs.status(load_settings(), job, as_json=as_json)


@app.command()
def jobs(
    state: Annotated[str | None, typer.Option("--state", help="Only jobs in this state: running, completed, failed, ...")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Only jobs whose name contains this.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="Most jobs in one page.")] = 20,
    after: Annotated[str | None, typer.Option("--after", metavar="JOB", help="Show the page after this job.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    url: Url = None,
) -> int:
    """List jobs, newest first."""
    from guardfleet.cli.commands.job_list import listing

    return listing(load_settings(api_url=url), state=state, name=name, after=after, limit=limit, as_json=as_json)


@app.command()
def watch(job: JobLabel, url: Url = None) -> int:
    """Show a job's progress until it has ended. Ctrl-C only stops watching."""
    from guardfleet.cli.commands import jobs as commands

    return commands.watch(load_settings(api_url=url), job)


@app.command()
def results(
    job: JobLabel,
    out: Annotated[str, typer.Option("-o", "--out", help="File to write; - for standard output.")] = "-",
    fmt: Annotated[str | None, typer.Option("--format", help="jsonl, csv or parquet; by default from the file's suffix.")] = None,
    min_severity: Annotated[str, typer.Option("--min-severity", help="safe (all), controversial, unsafe; errors always.")] = "safe",
    with_text: Annotated[bool, typer.Option("--with-text", help="Add each text, as long as it is not deleted.")] = False,
    flat_metadata: Annotated[
        bool, typer.Option("--flat-metadata", help="In CSV and Parquet, write a column for each member of the metadata.")
    ] = False,
    spreadsheet_safe: Annotated[
        bool, typer.Option("--spreadsheet-safe", help="In CSV, put an apostrophe before what a spreadsheet would run.")
    ] = False,
    refused: Annotated[bool, typer.Option("--refused", help="Write the refused input lines instead, as JSONL.")] = False,
    with_retries: Annotated[
        bool, typer.Option("--with-retries", help="Of failed texts, write the newest verdict that a retry gave.")
    ] = False,
    action: Annotated[
        list[str] | None,
        typer.Option("--action", help="Only texts that the policy in force says to allow, flag, review or block."),
    ] = None,
    detector: Annotated[str | None, typer.Option("--detector", help="The detector whose labels --label names.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="Only texts to which --detector gave this label, or too_short, unlabelled, error."),
    ] = None,
) -> int:
    """Write a job's verdicts in input order; for a running job, those it has so far."""
    from guardfleet.cli.commands import results as command
    from guardfleet.verdicts.export import Layout
    from guardfleet.verdicts.filters import Labelled

    if refused:
        return command.refused(load_settings(), job, out=out)
    layout = Layout(with_text, is_spreadsheet_safe=spreadsheet_safe)
    return command.results(
        load_settings(),
        job,
        out=out,
        fmt=fmt,
        min_severity=min_severity,
        layout=layout,
        is_flat=flat_metadata,
        with_retries=with_retries,
        actions=action,
        labelled=Labelled.of(detector, label),
    )


@app.command()
def cancel(job: JobLabel) -> int:
    """Cancel a job; existing verdicts are kept."""
    from guardfleet.cli.commands import jobs

    return jobs.cancel(load_settings(), job)


@app.command()
def pause(job: JobLabel) -> int:
    """Pause a job: no further shard of it is started; running ones finish."""
    from guardfleet.cli.commands import jobs

    return jobs.pause(load_settings(), job)


@app.command()
def resume(job: JobLabel) -> int:
    """Resume a paused job."""
    from guardfleet.cli.commands import jobs

    return jobs.resume(load_settings(), job)


@app.command(context_settings={"ignore_unknown_options": True})  # a priority may begin with a dash
def prioritise(job: JobLabel, priority: Annotated[int, typer.Argument(min=-100, max=100, help="Higher runs first.")]) -> int:
    """Change a job's priority among its owner's jobs."""
    from guardfleet.cli.commands import jobs

    return jobs.prioritise(load_settings(), job, priority)


for command in (report, retry, redecide, evaluate, sample, reviews, worker, dispatcher, api, audit, plan, erase, erasures):
    app.command()(command)


@app.command()
def doctor(
    texts: Annotated[
        list[str] | None, typer.Option("--texts", metavar="FILE", help="Also count the texts of this file that are too long.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    within: Annotated[float, typer.Option("--within", min=0.1, help="Longest time for all checks, s.")] = WITHIN_S,
) -> int:
    """Check this machine for everything that would stop guardfleet; nothing is changed. Exit status 2 if a check failed."""
    from guardfleet.cli.commands.doctor import doctor as run

    return run(texts=texts or (), as_json=as_json, within_s=within)


@app.command()
def version() -> int:
    """Print the version."""
    print(f"guardfleet {__version__}")
    return 0
