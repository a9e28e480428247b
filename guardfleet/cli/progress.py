"""What the terminal shows: a progress bar with rate and ETA, and the summary table."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from guardfleet.cli.terminal import answers, notes, say
from guardfleet.domain import ids
from guardfleet.domain.detection import Outcome
from guardfleet.domain.states import JobState
from guardfleet.domain.verdict import GUARD, Category, Severity, category_names
from guardfleet.errors import FatalError
from guardfleet.store.jobs.views import STANDSTILL, JobView

if TYPE_CHECKING:
    from guardfleet.client.direct import Submission

POLL_S = 0.2
PLAIN_EVERY_S = 10.0  # how often a line is printed without a terminal
STYLES = {
    Severity.SAFE: "green",
    Severity.CONTROVERSIAL: "yellow",
    Severity.UNSAFE: "red",
    Severity.ERROR: "magenta",
    Severity.UNRATED: "dim",
}
NO_CATEGORY = {Severity.ERROR: "no verdict", Severity.UNRATED: "guard not asked"}


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """Render texts per second over the last seconds."""
        return Text(f"{task.speed:,.0f} texts/s" if task.speed else "- texts/s", style="progress.data.speed")


def follow(
    look: Callable[[], JobView], *, broken: Callable[[], str | None] = lambda: None, waiting: str = "waiting for a worker"
) -> JobView:
    """Show progress until the job has ended; `waiting` is shown until its first verdict. FatalError if the stack is broken."""
    job = look()
    with _bar() as progress:
        task = progress.add_task(waiting, total=job.total, completed=job.done)
        started, done_before, said = time.monotonic(), job.done, time.monotonic()
        while not job.state.is_final:
            if wrong := broken():
                raise FatalError(wrong.removeprefix("guardfleet: "))
            time.sleep(POLL_S)
            job = look()
            said_what = "moderating" if job.done > done_before else waiting
            progress.update(task, completed=job.done, total=job.total, description=said_what)
            if not notes.is_terminal and time.monotonic() - said > PLAIN_EVERY_S:
                said = time.monotonic()
                rate = (job.done - done_before) / (said - started)
                pace = f"{rate:,.0f} texts/s, {(job.total - job.done) / rate:,.0f} s to go" if rate else waiting
                say(f"{job.done:,} of {job.total:,} texts, {pace}")
    return job


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` texts are done; yields a function that counts further ones."""
    started = said = time.monotonic()
    done = 0

    def count(n: int) -> None:
        nonlocal done, said
        done += n
        progress.update(task, completed=done, total=max(done, total))
        if not notes.is_terminal and time.monotonic() - said > PLAIN_EVERY_S:
            said = time.monotonic()
            say(f"{what} {done:,} of {max(done, total):,} texts, {done / (said - started):,.0f} texts/s")

    with _bar() as progress:
        task = progress.add_task(what, total=total)
        yield count


def _bar() -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", style="progress.description", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TextColumn("ETA", markup=False),
        TimeRemainingColumn(compact=True),
    )
    return Progress(*columns, console=notes, disable=not notes.is_terminal, speed_estimate_period=15)


def submitted(submission: "Submission") -> None:
    """Report an earlier equal submit, refused lines, and the callback's secret if the caller does not know it."""
    job, first = submission.job, submission.rejected
    if not submission.is_new:
        say(f"the same input was submitted on {job.created_at:%Y-%m-%d %H:%M} UTC: {job.label} is {job.state.label}")
        return
    if submission.resumed_after:
        say(f"an earlier submit was interrupted after line {submission.resumed_after:,}: {job.label} is resumed")
    if job.rejected:
        say((f"{job.rejected:,} {'line was' if job.rejected == 1 else 'lines were'} refused", "yellow"), "; the rest goes on:")
        for error in first:
            say(f"  {error}")
        shown = sum(error.n_lines for error in first)
        if job.rejected > shown:
            say(f"  ... and {job.rejected - shown:,} more: guardfleet results {job.label} --refused")
    for warning in submission.warnings:
        look_at(warning)
    if submission.callback_secret:
        say(f"the callback is signed with {submission.callback_secret}")


def look_at(warning: str) -> None:
    """Print a warning about accepted input."""
    say(("warning", "yellow"), f": {warning}")


def progress(job: JobView, wrong: str | None, *, to: Console = answers) -> None:
    """Print the progress of a job that has not ended: texts, rate, time left, and why it is blocked."""
    parts = [f"{job.done:,} of {job.total:,} texts done"]
    if job.state is JobState.INGESTING:
        parts.append("more are being read")
    if job.texts_per_s > STANDSTILL:
        parts.append(f"{job.texts_per_s:,.0f} texts/s")
    if job.eta_s is not None:
        parts.append(f"about {duration(job.eta_s)} to go")
    say(", ".join(parts), to=to)
    _detected(job, to)
    if wrong:
        say((wrong, "yellow"), to=to)


def duration(seconds: float) -> str:
    """Format a duration, no more exact than needed."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{hours} h {minutes} min" if hours else f"{minutes} min"  # noqa: PLR2004


Counts = Mapping[tuple[Severity, Category], int]


def summary(
    job: JobView,
    counts: Counts,
    *,
    seconds: float | None,
    with_start: bool = False,
    price: float | None = None,
    to: Console = notes,
) -> None:
    """Print the table of severities and categories, and the figures below.

    `with_start`: `seconds` include a worker's start. `price`: of a device's hour.
    """
    demo = " - judged by the DEMO model, not for real use" if job.is_demo else ""
    say((job.label, "bold"), f": {job.state.label}{demo}", to=to)
    if counts:
        say(_table(job, counts), to=to)
    say(_figures(job, seconds, with_start=with_start), to=to)
    _detected(job, to)
    if job.actions:
        say(f"policy: {', '.join(f'{n:,} {action}' for action, n in job.actions.items() if n)}", to=to)
    if job.device_s:
        say(_cost(job, price), to=to)
    if job.second_model:
        say(_cascade(job), to=to)
    for name, cascade in job.cascades.items():
        say(f"{name}: {_escalated(job, cascade)}", to=to)
    if job.retry_of:
        say(f"retry of {ids.JOB.of(job.retry_of)}", to=to)
    if job.retries:
        say(f"failed texts were judged again by {', '.join(map(ids.JOB.of, job.retries))}", to=to)


def _figures(job: JobView, seconds: float | None, *, with_start: bool) -> str:
    """Say in one line how many texts there were, how fast, and what became of them."""
    parts = [f"{job.done:,} texts"]
    if seconds:
        start = ", start of the worker included" if with_start else ""
        parts[0] += f" in {seconds:,.1f} s ({job.done / seconds:,.0f} texts/s{start})"
    if job.asks_guard:
        parts.append(f"{job.saved:,} without a model run (cache, duplicates, empty, lists)")
    parts += [_failed(job), f"{job.rejected:,} lines refused"]
    if job.model:
        parts.append(f"model {job.model}" if len(job.models) < 2 else f"models {', '.join(job.models)}")  # noqa: PLR2004
    return ", ".join(parts)


def _failed(job: JobView) -> str:
    """Say how many texts got no answer, and of whom if detectors were asked."""
    if job.detectors is None:
        return f"{job.error:,} failed"
    ends = {GUARD: job.error, **{name: counts.get(Outcome.ERROR.label, 0) for name, counts in (job.detected or {}).items()}}
    return " and ".join(f"{n:,} failed with {name}" for name, n in ends.items() if n) or "0 failed"


def _detected(job: JobView, to: Console) -> None:
    """Say of each detector how many texts have ended how so far, the most first."""
    for name, ends in (job.detected or {}).items():
        say(f"{name}: {', '.join(f'{n:,} {end}' for end, n in sorted(ends.items(), key=lambda pair: -pair[1]))}", to=to)


def _table(job: JobView, counts: Counts) -> Table:
    table = Table()
    table.add_column("category")
    shown = [s for s in Severity if any(severity is s for severity, _ in counts)]
    for severity in shown:
        table.add_column(severity.label, justify="right", style=STYLES[severity], no_wrap=True)
    rows: dict[str, dict[Severity, int]] = {}
    for (severity, categories), n in counts.items():
        for name in category_names(categories) or [NO_CATEGORY.get(severity, "none")]:
            cell = rows.setdefault(name, {})
            cell[severity] = cell.get(severity, 0) + n
    for name, cells in sorted(rows.items(), key=lambda item: -sum(item[1].values())):
        table.add_row(name, *(f"{cells[s]:,}" if s in cells else "" for s in shown))
    table.add_section()
    totals = {
        Severity.SAFE: job.safe,
        Severity.CONTROVERSIAL: job.controversial,
        Severity.UNSAFE: job.unsafe,
        Severity.ERROR: job.error,
        Severity.UNRATED: job.unrated,
    }
    table.add_row("all texts", *(f"{totals[s]:,}" for s in shown))
    return table


def _cost(job: JobView, price: float | None) -> str:
    """Say what the job took of the devices, and what that cost."""
    cost = job.cost(price)
    said = f"{job.device_s:,.1f} device seconds" if job.device_s >= 1 else f"{job.device_s:.2g} device seconds"
    return said if cost is None else f"{said}, cost {cost:,.4g} ({cost / max(1, job.done) * 1e6:,.4g} per million texts)"


def _cascade(job: JobView) -> str:
    counts = {"escalated": job.escalated, "sampled": job.sampled, "agreed": job.agreed}
    return _escalated(job, {"escalate_to": job.second_model, "confidence_threshold": job.sure, **counts})


def _escalated(job: JobView, cascade: Mapping[str, Any]) -> str:
    """Say how many texts went on to a second model or detector, and how often it agreed."""
    n, sampled, sure = cascade["escalated"], cascade["sampled"], cascade["confidence_threshold"]
    others = f"of {sampled:,} others it was asked too, it agreed on {cascade['agreed']:,}" if sampled else "no others were sampled"
    return (
        f"{n:,} of {job.done:,} texts ({n / max(1, job.done):.1%}) went on to {cascade['escalate_to']}, the first "
        f"{'model' if cascade['escalate_to'] == job.second_model else 'detector'} being less than {sure:.0%} sure; {others}"
    )
