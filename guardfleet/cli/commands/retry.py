"""`guardfleet retry`: judge the failed texts of an ended job again, as a new job."""

from typing import TYPE_CHECKING, Annotated

import typer

from guardfleet.settings import load_settings

if TYPE_CHECKING:
    from guardfleet.client.job import Job
    from guardfleet.settings import Settings


def retry(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the ended job, job_...")],
    error: Annotated[
        list[str] | None, typer.Option("--error", metavar="CODE", help="Only texts with this error code; repeatable.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until the new job has ended.")] = False,
    url: Annotated[str | None, typer.Option("--url", help="Use the API at this URL, with the key in GUARDFLEET_API_KEY.")] = None,
) -> int:
    """Judge the failed texts of an ended job again, as a new job, and print its id; resumes an interrupted retry."""
    return run(load_settings(api_url=url), job, error or [], wait=wait)


def run(settings: "Settings", label: str, codes: list[str], *, wait: bool) -> int:
    """Make the retry, directly or over HTTP."""
    from guardfleet.cli import DONE
    from guardfleet.cli.commands import jobs, remote

    if settings.api_url is not None:
        with remote.connect(settings) as client:
            again = client.retry(label, error=codes)
        _told(again, label)
        return remote.watch(settings, again.id) if wait else DONE
    from guardfleet.client.direct import DirectClient

    with DirectClient.connect(jobs.of_fleet(settings), application="guardfleet-retry") as direct:
        made = direct.retry(label, error=codes)
        _told(made, label)
        return jobs.follow(direct.db, made.job, price=settings.price_per_device_hour) if wait else DONE


def _told(made: "Job", of: str) -> None:
    from guardfleet.cli import terminal

    print(made.id, flush=True)
    terminal.say(f"{made.total:,} failed texts of {of} are judged again; `guardfleet results {of} --with-retries` has the union")
